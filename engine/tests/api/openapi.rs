use serde_json::Value;

use crate::server::says;

/// Every `$ref` below a value.
fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_holds_what_it_refers_to() {
    let (_, text) = says("x").get("/openapi.json").await;
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    references(&document["paths"], &mut found);
    references(&document["components"], &mut found);
    assert!(found.len() > 50);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn fields_of_every_part_of_a_request_are_there() {
    let (_, text) = says("x").get("/openapi.json").await;
    let document: Value = serde_json::from_str(&text).unwrap();
    let chat = &document["components"]["schemas"]["ChatCompletionRequest"]["properties"];
    for field in
        ["messages", "model", "tools", "tool_choice", "temperature", "n", "response_format", "logprobs", "chat_template_kwargs", "stream"]
    {
        assert!(chat[field].is_object(), "{field}");
    }
    assert_eq!(chat["model"]["enum"], serde_json::json!(["q", "alias"]));
    let answer = &document["components"]["schemas"]["ChatCompletion"];
    assert_eq!(answer["additionalProperties"], false);
    assert!(answer["properties"]["choices"]["items"]["properties"]["message"]["properties"]["tool_calls"].is_object());
}
