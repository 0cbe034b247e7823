use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::server::{lines, pretty, qwen, says, without_ids};

const PATH: &str = "/v1/chat/completions";
const CALL: &str = r#"<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;

fn ask(fields: Value) -> Value {
    let add = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let mut body = json!({
        "messages": [{"role": "user", "content": "1?"}],
        "tools": [
            {"type": "function", "function": {"name": "add", "parameters": add}},
            {"type": "function", "function": {"name": "stop"}},
        ],
    });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// Call ids are random.
fn without_call_ids(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_call_id = value.as_str().is_some_and(|text| text.starts_with("call_"));
                *value = if is_call_id && (name == "id" || name == "call_id") { json!("CALL") } else { without_call_ids(value.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_call_ids(item.take())),
        _ => {}
    }
    value
}

/// A stream's only call: its name and its arguments put together.
fn streamed_call(events: &[Value]) -> (String, String) {
    let deltas: Vec<&Value> = events.iter().flat_map(|e| e["choices"][0]["delta"]["tool_calls"].as_array()).flatten().collect();
    assert!(deltas.iter().all(|delta| delta["index"] == 0));
    assert!(deltas[0]["id"].is_string() && deltas[0]["type"] == "function" && deltas[0]["function"]["arguments"] == "");
    assert!(deltas[1..].iter().all(|delta| delta.get("id").is_none() && delta["function"].get("name").is_none()));
    let arguments = deltas.iter().map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect();
    (deltas[0]["function"]["name"].as_str().unwrap().to_owned(), arguments)
}

#[tokio::test]
async fn a_call_that_the_model_decides_on_comes_apart_from_the_text() {
    let server = qwen(&format!("<think>Hm.</think>Well: {CALL}"));
    let answer = server.post(PATH, ask(json!({}))).await;
    assert_snapshot!(pretty(&without_call_ids(without_ids(answer))));
}

#[tokio::test]
async fn a_streamed_call_is_its_name_and_then_its_arguments_in_pieces() {
    let server = qwen(&format!("<think>Hm.</think>Well: {CALL}"));
    let events = server.stream_freely(PATH, ask(json!({"stream_options": {"include_usage": true}}))).await;
    assert_eq!(streamed_call(&events), ("add".to_owned(), r#"{"a": 1}"#.to_owned()));
    assert_snapshot!(lines(events.into_iter().map(without_call_ids).collect()));
}

#[tokio::test]
async fn what_only_looks_like_a_call_is_content() {
    for reply in ["<tool_call>{\"name\": \"add\"}</tool_call>", "<tool_call>add(1)", "a < b"] {
        let server = qwen(reply);
        let message = server.post(PATH, ask(json!({}))).await["choices"][0].take();
        assert_eq!((&message["message"]["content"], &message["finish_reason"]), (&json!(reply), &json!("stop")));
        assert_eq!(message["message"].get("tool_calls"), None);
        let streamed = server.stream_freely(PATH, ask(json!({}))).await;
        let content: String = streamed.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(content, reply);
    }
}

#[tokio::test]
async fn a_named_function_is_called_with_arguments_of_its_schema() {
    let choice = json!({"type": "function", "function": {"name": "add"}});
    let server = qwen(r#"{"a": 7}"#);
    let answer = server.post(PATH, ask(json!({"tool_choice": choice}))).await["choices"][0].take();
    assert_eq!(answer["finish_reason"], "tool_calls");
    assert_eq!(answer["message"]["content"], Value::Null);
    assert_eq!(answer["message"]["tool_calls"][0]["function"], json!({"name": "add", "arguments": "{\"a\": 7}"}));
    let streamed = server.stream_freely(PATH, ask(json!({"tool_choice": choice}))).await;
    assert_eq!(streamed_call(&streamed), ("add".to_owned(), "{\"a\": 7}".to_owned()));
    // What the model would rather say is not asked.
    let answer = qwen("42").post(PATH, ask(json!({"tool_choice": choice, "max_tokens": 40}))).await["choices"][0].take();
    assert_ne!(answer["message"]["tool_calls"][0]["function"]["arguments"], "42");
    assert_ne!(answer["message"]["content"], "42");
}

#[tokio::test]
async fn required_calls_come_from_a_list() {
    let server = qwen(r#"<think>Both.</think>[{"name": "add", "arguments": {"a": 7}}, {"name": "stop", "arguments": {}}]"#);
    let answer = server.post(PATH, ask(json!({"tool_choice": "required"}))).await["choices"][0].take();
    assert_eq!(answer["finish_reason"], "tool_calls");
    assert_eq!(answer["message"]["reasoning"], "Both.");
    let calls = answer["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.iter().map(|call| call["function"]["name"].as_str().unwrap()).collect::<Vec<_>>(), ["add", "stop"]);
}

#[tokio::test]
async fn no_tool_is_called_where_none_may_be() {
    let answer = qwen(CALL).post(PATH, ask(json!({"tool_choice": "none"}))).await["choices"][0].take();
    assert_eq!(answer["message"]["content"], CALL);
    assert_eq!(answer["finish_reason"], "stop");
}

#[tokio::test]
async fn reasoning_can_be_left_out() {
    let answer = qwen("<think>Hm.</think>Hi").post(PATH, ask(json!({"include_reasoning": false}))).await["choices"][0].take();
    assert_eq!(answer["message"]["content"], "Hi");
    assert_eq!(answer["message"].get("reasoning"), None);
}

#[tokio::test]
async fn templates_see_tools_and_calls_as_objects() {
    let server = qwen("");
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": [1]}"}});
    let body = json!({
        "messages": [
            {"role": "developer", "content": "s"},
            {"role": "assistant", "content": null, "reasoning": "r", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "2"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "reasoning_effort": "none",
        "chat_template": "{{ messages | tojson }}\n{{ tools | tojson }}\n{{ enable_thinking }} {{ reasoning_effort }}",
    });
    let tokens = server.post("/tokenize", body).await["tokens"].take();
    assert_snapshot!(server.post("/detokenize", json!({"tokens": tokens})).await["prompt"].as_str().unwrap());
}

#[tokio::test]
async fn mistaken_tools_are_refused_by_name() {
    let server = says("x");
    let mut table = String::new();
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}], "tool_choice": "required"});
    for fields in [
        json!({}),
        json!({"tools": [], "tool_choice": null}),
        json!({"tools": null, "tool_choice": "required"}),
        json!({"tool_choice": "sometimes"}),
        json!({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}),
        json!({"tools": [{"type": "retrieval"}]}),
        function(json!({"name": ""})),
        function(json!({"name": "f", "parameters": {"type": "string"}})),
        function(json!({"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}})),
        json!({"chat_template": "x", "tool_choice": "none"}),
        json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "oops"}}]}], "tool_choice": "none"}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "tool_choice": "none"}),
    ] {
        let (status, text) = server.post_raw(PATH, ask(fields.clone()).to_string()).await;
        table += &format!("{fields}\n  {} {text}\n", status.as_u16());
    }
    assert_snapshot!(table);
}
