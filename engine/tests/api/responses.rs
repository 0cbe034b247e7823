use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{
    script::Gate,
    server::{pretty, qwen, says, start},
};

const PATH: &str = "/v1/responses";
const REPLY: &str = r#"<think>Hm.</think>Well: <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;

fn with_tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    json!({"input": "1?", "tools": [{"type": "function", "name": "add", "parameters": parameters}]})
}

/// Without what differs from run to run.
fn steady(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, value) in fields {
                *value = match (name.as_str(), value.take()) {
                    ("created_at", _) => json!(0),
                    ("call_id", _) => json!("CALL"),
                    ("id" | "item_id", Value::String(id)) => {
                        let (kind, rest) = id.split_once('_').unwrap();
                        json!(rest.split_once('_').map_or(kind.to_owned(), |(_, index)| format!("{kind}_{index}")))
                    }
                    (_, value) => steady(value),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = steady(item.take())),
        _ => {}
    }
    value
}

fn text(response: &Value) -> &Value {
    &response["output"][0]["content"][0]["text"]
}

#[tokio::test]
async fn an_answer_in_one_piece_holds_items() {
    assert_snapshot!(pretty(&steady(qwen(REPLY).post(PATH, with_tools()).await)));
}

#[tokio::test]
async fn a_stream_tells_of_every_step() {
    let events = qwen(REPLY).named_events(PATH, with_tools()).await;
    assert!(events.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
    let told = |event: Value| {
        let mut event = steady(event);
        if event["type"] != "response.completed" && event["response"].is_object() {
            event["response"] = json!("...");
        }
        event.to_string() + "\n"
    };
    assert_snapshot!(events.into_iter().map(told).collect::<String>());
}

#[tokio::test]
async fn what_does_not_fit_is_incomplete() {
    let answer = says("one two three").post(PATH, json!({"input": "1?", "max_output_tokens": 2})).await;
    assert_eq!((&answer["status"], &answer["incomplete_details"]["reason"]), (&json!("incomplete"), &json!("max_output_tokens")));
    assert_eq!(answer["output"][0]["status"], "incomplete");
    assert_eq!(answer["usage"]["output_tokens"], 2);
    let last = says("one two three").named_events(PATH, json!({"input": "1?", "max_output_tokens": 2})).await.pop().unwrap();
    assert_eq!(last["type"], "response.incomplete");
}

#[tokio::test]
async fn items_are_read_as_the_chat_that_they_are() {
    let server = says("x");
    let items = json!({"instructions": "s", "input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let chat = json!({"messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
    ]});
    let answer = server.post(PATH, items).await;
    assert_eq!(text(&answer), "x");
    assert_eq!(answer["usage"]["input_tokens"], server.post("/tokenize", chat).await["count"]);
}

#[tokio::test]
async fn sampling_fields_of_chats_steer_a_response_too() {
    let server = says("one two three");
    let say = async |fields: Value| {
        let mut body = json!({"input": "1?"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        text(&server.post(PATH, body).await).clone()
    };
    assert_eq!(say(json!({})).await, "one two three");
    assert_eq!(say(json!({"guided_choice": ["yes", "no"]})).await.as_str().map(|said| ["yes", "no"].contains(&said)), Some(true));
    assert_eq!(say(json!({"guided_regex": "on[a-e] t"})).await, "one t");
    assert_eq!(say(json!({"stop": " two", "include_stop_str_in_output": true})).await, "one two");
    assert_ne!(say(json!({"stop": " two", "min_tokens": 60, "max_output_tokens": 60})).await, "one");
}

#[tokio::test]
async fn what_is_not_kept_is_refused_by_name() {
    let server = says("x");
    let mut table = String::new();
    for fields in [
        json!({"input": null}),
        json!({"input": []}),
        json!({"input": [{"type": "item_reference", "id": "x"}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
        json!({"previous_response_id": "resp_1"}),
        json!({"background": true}),
        json!({"truncation": "auto"}),
        json!({"tools": [{"type": "web_search"}]}),
        json!({"tool_choice": "required"}),
        json!({"max_output_tokens": 1000}),
        json!({"temperature": -1}),
        json!({"include": ["reasoning.encrypted_content"]}),
    ] {
        let mut body = json!({"input": "1?"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, text) = server.post_raw(PATH, body.to_string()).await;
        table += &format!("{fields}\n  {} {text}\n", status.as_u16());
    }
    assert_snapshot!(table);
}

#[tokio::test]
async fn a_stream_that_fails_says_so() {
    let server = start("one two three", Gate::open(), Some(2));
    let last = server.named_events(PATH, json!({"input": "1?"})).await.pop().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
}
