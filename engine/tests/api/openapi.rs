use serde_json::{Value, json};

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
    assert_eq!(chat["model"]["enum"], json!(["q", "alias"]));
    let answer = &document["components"]["schemas"]["ChatCompletion"];
    assert_eq!(answer["additionalProperties"], false);
    assert!(answer["properties"]["choices"]["items"]["properties"]["message"]["properties"]["tool_calls"].is_object());
}

/// Each field that the document names is read: of several values, one at least does not fit it, and the refusal says which field.
#[tokio::test]
async fn every_field_of_the_document_is_taken_by_its_route() {
    let message = json!([{"role": "user", "content": "1?"}]);
    let bodies = [
        ("/v1/chat/completions", json!({"messages": message})),
        ("/v1/completions", json!({"prompt": "1?"})),
        ("/v1/responses", json!({"input": "1?"})),
        ("/v1/messages", json!({"model": "q", "max_tokens": 9, "messages": message})),
        ("/v1/messages/count_tokens", json!({"model": "q", "messages": message})),
        ("/tokenize", json!({"prompt": "1?"})),
        ("/detokenize", json!({"tokens": [5]})),
        // A server embeds or generates; this one generates, and says so before it reads.
        ("/v1/embeddings", Value::Null),
    ];
    let server = says("x");
    let document: Value = serde_json::from_str(&server.get("/openapi.json").await.1).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let with_body: Vec<&String> = paths.filter(|(_, path)| path["post"]["requestBody"].is_object()).map(|(path, _)| path).collect();
    assert_eq!(with_body.len(), bodies.len(), "{with_body:?}");
    for (path, body) in bodies.into_iter().filter(|(_, body)| body.is_object()) {
        server.post(path, body.clone()).await;
        let schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        for field in document.pointer(&schema[1..]).unwrap()["properties"].as_object().unwrap().keys() {
            let mut is_read = false;
            for wrong in [json!([[]]), json!(-7), json!("?"), json!({"?": 1})] {
                let mut body = body.clone();
                body[field] = wrong;
                // A chat's fields count where no prompt goes before them.
                if path == "/tokenize" && field != "prompt" {
                    body["messages"] = if field == "messages" { body["messages"].take() } else { message.clone() };
                    body.as_object_mut().unwrap().remove("prompt");
                }
                let (status, text) = server.post_raw(path, body.to_string()).await;
                assert!(status.is_success() || status.is_client_error(), "{path} {body}: {status}");
                is_read |= status.is_client_error() && text.contains(field.as_str());
            }
            assert!(is_read, "{path} takes `{field}` whatever it is");
        }
    }
}
