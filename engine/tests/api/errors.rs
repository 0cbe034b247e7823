//! Every refusal in one table: what was sent, and the status and body that came back.

use std::fmt::Write;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    script::Gate,
    server::{Server, events, post, read, says, start},
};

async fn refusal(server: &Server, table: &mut String, path: &str, body: &str) {
    let (status, answer) = server.post_raw(path, body.to_owned()).await;
    assert!(status.is_client_error(), "{body}: {status} {answer}");
    let shown: String = body.chars().take(100).collect();
    writeln!(table, "{path} {shown}\n  {} {answer}", status.as_u16()).unwrap();
}

fn completion(fields: Value) -> String {
    let mut body = json!({"prompt": "p"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string()
}

fn chat(fields: Value) -> String {
    let mut body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string()
}

#[tokio::test]
async fn bodies_that_are_no_request() {
    let (server, mut table) = (says("x"), String::new());
    for body in ["", "{", "{\"prompt\": \"a\",}", "{\"prompt\": \"a\"\n \"max_tokens\": 3}", "[]", "\"text\"", "{\"prompt\": \"\\ud800\"}"]
    {
        refusal(&server, &mut table, "/v1/completions", body).await;
    }
    let deep = format!("{{\"prompt\": {}", "[".repeat(1000));
    refusal(&server, &mut table, "/v1/completions", &deep).await;
    assert_snapshot!(table);
}

#[tokio::test]
async fn values_of_the_wrong_type() {
    let (server, mut table) = (says("x"), String::new());
    for fields in [
        json!({"temperature": "hot"}),
        json!({"max_tokens": 1.5}),
        json!({"stream": "yes"}),
        json!({"seed": 1e30}),
        json!({"stop": 3}),
        json!({"stop": [1]}),
        json!({"stop_token_ids": [1, -1]}),
        json!({"stream": true, "stream_options": {"include_usage": 1}}),
        json!({"model": 4}),
        json!({"prompt": {"a": 1}}),
        json!({"prompt": ["a", 1]}),
        json!({"logprobs": true}),
    ] {
        refusal(&server, &mut table, "/v1/completions", &completion(fields)).await;
    }
    for fields in [json!({"logprobs": 3}), json!({"messages": "hi"}), json!({"chat_template_kwargs": []})] {
        refusal(&server, &mut table, "/v1/chat/completions", &chat(fields)).await;
    }
    assert_snapshot!(table);
}

#[tokio::test]
async fn values_out_of_range() {
    let (server, mut table) = (says("x"), String::new());
    for fields in [
        json!({"model": "nope"}),
        json!({"temperature": -1}),
        json!({"temperature": 2.5}),
        json!({"top_p": 0}),
        json!({"top_p": 3}),
        json!({"top_k": -2}),
        json!({"min_p": 1.5}),
        json!({"max_tokens": 0}),
        json!({"max_tokens": -3}),
        json!({"max_tokens": 1000000}),
        json!({"logprobs": 21}),
        json!({"logprobs": -1}),
        json!({"logprobs": -2}),
        json!({"stop": ""}),
        json!({"stop": vec!["x"; 33]}),
        json!({"stop_token_ids": [1024]}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"n": 0}),
        json!({"n": 1025}),
        json!({"n": 2, "temperature": 0}),
        json!({"prompt": vec!["p"; 600], "n": 2}),
        json!({"n": 2, "best_of": 1}),
        json!({"best_of": 3, "stream": true}),
        json!({"presence_penalty": -2.1}),
        json!({"frequency_penalty": 3}),
        json!({"repetition_penalty": 0}),
        json!({"repetition_penalty": 1e300}),
        json!({"logit_bias": {"1024": 1}}),
        json!({"logit_bias": {"a": 1}}),
        json!({"logit_bias": {"7": "b"}}),
        json!({"allowed_token_ids": []}),
        json!({"allowed_token_ids": [1, -1]}),
        json!({"bad_words": ["x", ""]}),
        json!({"bad_words": [" "]}),
        json!({"bad_words": ["x".repeat(40_000)]}),
        json!({"min_tokens": -1}),
        json!({"min_tokens": 17}),
        json!({"truncate_prompt_tokens": -2}),
        json!({"truncate_prompt_tokens": 129}),
        json!({"truncate_prompt_tokens": 0}),
        json!({"truncation_side": "middle"}),
        json!({"cache_salt": ""}),
        json!({"prompt_logprobs": 21}),
        json!({"prompt_logprobs": 1, "stream": true}),
        json!({"suffix": "s"}),
        json!({"use_beam_search": true}),
    ] {
        refusal(&server, &mut table, "/v1/completions", &completion(fields)).await;
    }
    for fields in [
        json!({"max_tokens": 128}),
        json!({"max_completion_tokens": 128}),
        json!({"top_logprobs": 2}),
        json!({"logprobs": true, "top_logprobs": 21}),
        json!({"tools": [{"type": "function"}]}),
        json!({"n": 2, "temperature": 0}),
    ] {
        refusal(&server, &mut table, "/v1/chat/completions", &chat(fields)).await;
    }
    assert_snapshot!(table);
}

#[tokio::test]
async fn constraints_that_cannot_be_followed() {
    let (server, mut table) = (says("x"), String::new());
    let mut deep = json!({"type": "string"});
    for _ in 0..65 {
        deep = json!({"type": "array", "items": deep});
    }
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}});
    for fields in [
        json!({"response_format": {"type": "yaml"}}),
        json!({"response_format": {}}),
        json!({"response_format": {"type": "json_schema"}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}}),
        format(json!({"type": "strange"})),
        format(json!({"type": "integer", "minimum": 5, "maximum": 3})),
        format(deep),
        format(json!(3)),
        json!({"structured_outputs": {}}),
        json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}),
        json!({"structured_outputs": {"regex": "(a"}}),
        json!({"structured_outputs": {"choice": []}}),
        json!({"structured_outputs": {"choice": "a"}}),
        json!({"structured_outputs": {"grammar": "start: missing"}}),
        json!({"structured_outputs": {"json": "{"}}),
        json!({"structured_outputs": {"structural_tag": "{}"}}),
        json!({"guided_regex": "*"}),
        json!({"guided_choice": ["a"], "response_format": {"type": "json_object"}}),
    ] {
        refusal(&server, &mut table, "/v1/completions", &completion(fields)).await;
    }
    assert_snapshot!(table);
}

#[tokio::test]
async fn prompts_that_cannot_be_served() {
    let (server, mut table) = (says("x"), String::new());
    for body in [
        json!({}),
        json!({"prompt": null}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": ["a", ""]}),
        json!({"prompt": [[]]}),
        json!({"prompt": [1024]}),
        json!({"prompt": [-1]}),
        json!({"prompt": [[5], [1, 9999999999i64]]}),
        json!({"prompt": vec![5; 128]}),
        json!({"prompt": ["a", "word ".repeat(20_000)]}),
    ] {
        refusal(&server, &mut table, "/v1/completions", &body.to_string()).await;
    }
    for messages in [
        json!(null),
        json!([]),
        json!(["hi"]),
        json!([{"content": "hi"}]),
        json!([{"role": "user"}]),
        json!([{"role": "user", "content": 3}]),
        json!([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        json!([{"role": "user", "content": [{"type": "text"}]}]),
        json!([{"role": "user", "content": "word ".repeat(200)}]),
        json!([{"role": "user", "content": "word ".repeat(20_000)}]),
    ] {
        refusal(&server, &mut table, "/v1/chat/completions", &json!({"messages": messages}).to_string()).await;
    }
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/tokenize", json!({"model": "nope", "prompt": "x"})),
        ("/detokenize", json!({})),
        ("/detokenize", json!({"tokens": [1024]})),
        ("/detokenize", json!({"tokens": "a"})),
    ] {
        refusal(&server, &mut table, path, &body.to_string()).await;
    }
    assert_snapshot!(table);
}

#[tokio::test]
async fn requests_that_are_not_for_any_route() {
    let (server, mut table) = (says("x"), String::new());
    let requests = [
        Request::get("/nowhere").body(Body::empty()).unwrap(),
        Request::get("/v1/completions").body(Body::empty()).unwrap(),
        Request::delete("/health").body(Body::empty()).unwrap(),
        Request::post("/v1/completions").body(Body::from("{}")).unwrap(),
        Request::post("/v1/completions").header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}")).unwrap(),
    ];
    for request in requests {
        let asked = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get(header::CONTENT_TYPE));
        let (status, answer) = read(server.send(request).await).await;
        writeln!(table, "{asked}\n  {} {answer}", status.as_u16()).unwrap();
    }
    assert_snapshot!(table);
}

/// Values that clients send by mistake, and some that are right.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..30).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof!["role", "content", "type", "text", "include_usage", "\\PC{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_body_is_more_than_a_refusal(fields in prop::collection::vec((prop::sample::select(FIELDS), value()), 0..6)) {
        let body = Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let server = says("x");
            for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"] {
                for (name, good) in [("prompt", json!("p")), ("messages", json!([{"role": "user", "content": "hi"}]))] {
                    let mut body = body.clone();
                    body.as_object_mut().unwrap().entry(name).or_insert(good);
                    let (status, text) = server.post_raw(path, body.to_string()).await;
                    assert!(status == StatusCode::OK || status.is_client_error(), "{path} {body}: {status} {text}");
                    if status != StatusCode::OK {
                        let error = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
                        assert_eq!(error["code"], status.as_u16());
                        assert!(!error["message"].as_str().unwrap().contains('\n'), "{text}");
                    }
                }
            }
        });
    }
}

const FIELDS: &[&str] = &[
    "model",
    "prompt",
    "messages",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "skip_special_tokens",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "add_special_tokens",
    "add_generation_prompt",
    "chat_template_kwargs",
    "tokens",
    "return_token_strs",
    "n",
    "echo",
    "tools",
];

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_announced_or_not() {
    let server = says("x");
    let big = format!("{{\"prompt\": \"{}\"}}", "a".repeat(33 << 20));
    let mut announced = post("/v1/completions", big.clone());
    announced.headers_mut().insert(header::CONTENT_LENGTH, big.len().into());
    let expected =
        r#"{"error":{"message":"The request body is larger than 32 MiB","type":"PayloadTooLargeError","param":null,"code":413}}"#;
    for request in [announced, post("/v1/completions", big)] {
        let (status, answer) = read(server.send(request).await).await;
        assert_eq!((status, answer.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, expected));
    }
}

#[tokio::test]
async fn a_failed_step_is_an_error_object_in_one_piece_and_in_a_stream() {
    let server = start("one two three", Gate::open(), Some(1));
    let mut request = post("/v1/completions", completion(json!({"stream": true})));
    let (status, text) = read(server.send(request).await).await;
    assert_eq!(status, StatusCode::OK);
    let events = events(&text);
    assert_eq!(events.len(), 3, "the token that came before goes out first: {text}");
    assert_eq!(events[2], "[DONE]");
    assert_eq!(events[0]["choices"][0]["finish_reason"], Value::Null);
    let failed = json!({"error": {
        "message": "The request failed in the engine: the scripted backend failed: it was told to",
        "type": "InternalServerError", "param": null, "code": 500,
    }});
    assert_eq!(events[1], failed);

    let server = start("one two three", Gate::open(), Some(1));
    request = post("/v1/completions", completion(json!({})));
    let (status, text) = read(server.send(request).await).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), failed);
    let (status, _) = server.post_raw("/v1/completions", completion(json!({}))).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_draining_server_says_when_to_come_back() {
    let server = says("x");
    server.engine.drain();
    let response = server.send(post("/v1/completions", completion(json!({})))).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, text) = read(response).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("ServiceUnavailableError"), "{text}");
}
