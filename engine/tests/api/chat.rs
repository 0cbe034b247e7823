use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    script::Gate,
    server::{lines, pretty, says, start, without_ids},
};

const PATH: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({"model": "q", "messages": [{"role": "user", "content": "Hello"}]})
}

fn with(fields: Value) -> Value {
    let mut body = hello();
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn content(events: &[Value]) -> String {
    events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn an_answer_in_one_piece_has_openais_shape() {
    let answer = says("Hi Zoë 👋").post(PATH, hello()).await;
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_snapshot!(pretty(&without_ids(answer)));
}

#[tokio::test]
async fn a_stream_is_role_then_text_then_reason_then_usage() {
    let server = says("Hi Zoë 👋");
    let events = server.stream(PATH, with(json!({"stream_options": {"include_usage": true}}))).await;
    assert_snapshot!(lines(events));
}

#[tokio::test]
async fn a_stream_adds_up_to_the_answer_in_one_piece() {
    let server = says("def f(x):\n    return x  # Zoë 👋🏽");
    let events = server.stream(PATH, hello()).await;
    let answer = server.post(PATH, hello()).await;
    assert_eq!(content(&events), answer["choices"][0]["message"]["content"]);
    let reasons: Vec<&Value> = events.iter().map(|e| &e["choices"][0]["finish_reason"]).filter(|r| !r.is_null()).collect();
    assert_eq!(reasons, ["stop"]);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn every_chunk_tells_usage_so_far_when_asked() {
    let server = says("one two");
    let options = json!({"stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let events = server.stream(PATH, with(options)).await;
    let prompt_tokens = events[0]["usage"]["prompt_tokens"].as_u64().unwrap();
    let counts: Vec<u64> = events.iter().map(|e| e["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    let tokens = counts.len() as u64 - 2;
    assert_eq!(counts, (0..=tokens).chain([tokens]).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap()["usage"]["total_tokens"], prompt_tokens + tokens);

    let events = server.stream(PATH, with(json!({"stream_options": {"continuous_usage_stats": true}}))).await;
    assert!(events.iter().all(|e| e.get("usage").is_none()), "as in vLLM, only together with include_usage");
}

#[tokio::test]
async fn every_chunk_tells_health_when_asked_and_none_when_not() {
    let server = says("one two");
    let events = server.stream(PATH, with(json!({"stream_options": {"include_health": true, "include_usage": true}}))).await;
    assert!(events.len() > 3);
    for event in &events {
        assert_eq!(event["tokenflow"]["health"], 1.0, "{event}");
        assert!(event["tokenflow"]["rate"].is_number(), "{event}");
        assert_eq!(event["tokenflow"]["paced"], false, "{event}");
    }
    for event in server.stream(PATH, hello()).await {
        assert_eq!(event.get("tokenflow"), None);
        assert_eq!(event.get("usage"), None);
    }
}

#[tokio::test]
async fn log_probabilities_have_openais_shape_and_miss_no_token() {
    let server = says("Zoë");
    let fields = with(json!({"logprobs": true, "top_logprobs": 2}));
    let answer = server.post(PATH, fields.clone()).await;
    let logprobs = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_snapshot!(lines(logprobs.clone()));
    assert_eq!(logprobs.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());

    let streamed = server.stream(PATH, fields).await;
    let streamed = streamed.iter().filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array()).flatten();
    assert_eq!(streamed.collect::<Vec<_>>(), logprobs.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn max_tokens_ends_with_length_and_defaults_to_the_rest_of_the_context() {
    let server = says(&"word ".repeat(200));
    for name in ["max_tokens", "max_completion_tokens"] {
        let answer = server.post(PATH, with(json!({name: 3}))).await;
        assert_eq!(answer["usage"]["completion_tokens"], 3);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
    let answer = server.post(PATH, hello()).await;
    assert_eq!(answer["usage"]["total_tokens"], 128);
}

#[tokio::test]
async fn content_may_be_a_list_of_text_parts() {
    let server = says("x");
    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
    let joined = json!({"messages": [{"role": "user", "content": "a\nb"}]});
    assert_eq!(server.post("/tokenize", parts.clone()).await["tokens"], server.post("/tokenize", joined).await["tokens"]);
    server.post(PATH, parts).await;
}

#[tokio::test]
async fn unknown_fields_and_neutral_values_are_let_through() {
    let fields = json!({"user": "me", "n": 1, "presence_penalty": 0, "tools": null, "response_format": {"type": "text"}, "made_up": [1]});
    says("x").post(PATH, with(fields)).await;
}

#[tokio::test]
async fn a_stop_string_counts_as_stopped_not_as_aborted() {
    let server = start(&"one two three ".repeat(20), Gate::closed(), None);
    server.gate.allow(30);
    let answer = server.post(PATH, with(json!({"stop": "two thr"}))).await;
    server.gate.allow(1);
    assert_eq!(answer["choices"][0]["message"]["content"], "one ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["stop_reason"], "two thr");
    server.wait_for_metric(r#"vllm:request_success_total{engine="0",finished_reason="stop",model_name="q"}"#, "1").await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn stop_strings_cut_streams_and_answers_alike(reply in "[ab é\n]{1,30}", stop in prop::collection::vec("[ab é\n]{1,4}", 1..3)) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let server = says(&reply);
            let body = with(json!({"stop": stop}));
            let events = server.stream(PATH, body.clone()).await;
            let answer = server.post(PATH, body).await;
            let expected = (0..=reply.len())
                .filter(|&end| reply.is_char_boundary(end))
                .find_map(|end| stop.iter().filter(|s| reply[..end].ends_with(*s)).map(|s| end - s.len()).min())
                .map_or(reply.as_str(), |start| &reply[..start]);
            assert_eq!(content(&events), expected);
            assert_eq!(answer["choices"][0]["message"]["content"], expected);
        });
    }
}
