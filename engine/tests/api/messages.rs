use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{
    script::Gate,
    server::{pretty, qwen, says, start, without_ids},
};

const PATH: &str = "/v1/messages";
const CALL: &str = r#"<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;

fn ask(fields: Value) -> Value {
    let mut body = json!({"model": "q", "max_tokens": 60, "messages": [{"role": "user", "content": "1?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    json!([{"name": "add", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}])
}

fn table(events: Vec<Value>) -> String {
    let without_call_id = |mut event: Value| {
        if event["content_block"]["type"] == "tool_use" {
            event["content_block"]["id"] = json!("CALL");
        }
        if event["message"].is_object() {
            event["message"] = without_ids(event["message"].take());
        }
        event.to_string() + "\n"
    };
    events.into_iter().map(without_call_id).collect()
}

#[tokio::test]
async fn an_answer_in_one_piece_has_anthropics_shape() {
    let answer = qwen(&format!("<think>Hm.</think>Well: {CALL}")).post(PATH, ask(json!({"tools": tools()}))).await;
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    let mut answer = without_ids(answer);
    answer["content"][2]["id"] = json!("CALL");
    assert_snapshot!(pretty(&answer));
}

#[tokio::test]
async fn a_stream_opens_fills_and_closes_blocks() {
    let server = qwen(&format!("<think>Hm.</think>Well: {CALL}"));
    assert_snapshot!(table(server.named_events(PATH, ask(json!({"tools": tools()}))).await));
}

#[tokio::test]
async fn the_end_is_told_in_anthropics_words() {
    let server = says("one two three");
    let end = async |fields: Value| {
        let answer = server.post(PATH, ask(fields)).await;
        (answer["stop_reason"].clone(), answer["stop_sequence"].clone())
    };
    assert_eq!(end(json!({})).await, (json!("end_turn"), Value::Null));
    assert_eq!(end(json!({"max_tokens": 1})).await, (json!("max_tokens"), Value::Null));
    assert_eq!(end(json!({"stop_sequences": ["two"]})).await, (json!("stop_sequence"), json!("two")));
    let events = server.named_events(PATH, ask(json!({"stop_sequences": ["two"]}))).await;
    assert_eq!(events[events.len() - 2]["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "two"}));
}

#[tokio::test]
async fn tokens_are_counted_of_the_chat_that_blocks_are() {
    let server = says("");
    let system = json!([{"type": "text", "text": "s"}]);
    let blocks = json!({"model": "q", "system": system, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]});
    let chat = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]});
    let count = server.post("/v1/messages/count_tokens", blocks).await["input_tokens"].take();
    assert_eq!(count, server.post("/tokenize", chat).await["count"]);
}

#[tokio::test]
async fn errors_have_anthropics_shape() {
    let server = says("x");
    let mut table = String::new();
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
    for fields in [
        json!({"model": "nope"}),
        json!({"max_tokens": null}),
        json!({"max_tokens": 1000}),
        json!({"messages": []}),
        json!({"messages": image}),
        json!({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]}),
        json!({"temperature": -1}),
        json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        json!({"tool_choice": {"type": "tool"}}),
    ] {
        let (status, text) = server.post_raw(PATH, ask(fields.clone()).to_string()).await;
        table += &format!("{fields}\n  {} {text}\n", status.as_u16());
    }
    for body in ["{", "[]"] {
        let (status, text) = server.post_raw(PATH, body).await;
        table += &format!("{body}\n  {} {text}\n", status.as_u16());
    }
    let (status, text) = server.get(PATH).await;
    table += &format!("GET\n  {} {text}\n", status.as_u16());
    assert_snapshot!(table);
}

#[tokio::test]
async fn a_stream_that_fails_says_so() {
    let server = start("one two three", Gate::open(), Some(2));
    let last = server.named_events(PATH, ask(json!({}))).await.pop().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
}
