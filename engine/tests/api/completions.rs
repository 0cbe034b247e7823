use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::server::{lines, pretty, says, without_ids};

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn an_answer_in_one_piece_has_openais_shape() {
    let answer = says("Hi Zoë").post(PATH, json!({"prompt": "Say"})).await;
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_snapshot!(pretty(&without_ids(answer)));
}

#[tokio::test]
async fn a_stream_is_text_then_reason_then_usage() {
    let events = says("Hi Zoë").stream(PATH, json!({"prompt": "Say", "stream_options": {"include_usage": true}})).await;
    assert_snapshot!(lines(events));
}

#[tokio::test]
async fn the_default_is_sixteen_tokens_or_what_fits() {
    let server = says(&"word ".repeat(100));
    let answer = server.post(PATH, json!({"prompt": "Say"})).await;
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    let answer = server.post(PATH, json!({"prompt": vec![5; 120]})).await;
    assert_eq!(answer["usage"]["completion_tokens"], 8);
}

#[tokio::test]
async fn the_four_forms_of_a_prompt_mean_the_same() {
    let server = says("out");
    let ids = server.tokenizer.encode("some text", true).unwrap();
    let forms = [json!("some text"), json!(["some text"]), json!(ids), json!([ids])];
    for prompt in forms {
        let answer = server.post(PATH, json!({"prompt": prompt})).await;
        assert_eq!(answer["usage"]["prompt_tokens"], ids.len());
        assert_eq!(answer["choices"][0]["text"], "out");
    }
}

#[tokio::test]
async fn every_prompt_of_a_list_is_a_choice_of_its_own() {
    let server = says("a b c");
    let body = json!({"prompt": ["one", "two", "three"], "stream_options": null});
    let answer = server.post(PATH, body.clone()).await;
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);

    let events = server.stream(PATH, body).await;
    for index in 0..3 {
        let mine = events.iter().filter(|e| e["choices"][0]["index"] == index);
        assert_eq!(mine.clone().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect::<String>(), "a b c");
        assert_eq!(mine.filter(|e| e["choices"][0]["finish_reason"] == "stop").count(), 1);
    }
}

#[tokio::test]
async fn usage_so_far_is_the_choices_own_and_the_last_is_all() {
    let server = says("a b c");
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let mut events = server.stream(PATH, json!({"prompt": ["one", "two"], "stream_options": options})).await;
    let total = events.pop().unwrap()["usage"]["completion_tokens"].as_u64().unwrap();
    for index in 0..2 {
        let mine = events.iter().filter(|e| e["choices"][0]["index"] == index);
        let counts: Vec<u64> = mine.map(|e| e["usage"]["completion_tokens"].as_u64().unwrap()).collect();
        assert_eq!(counts, (1..=total / 2).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn log_probabilities_have_openais_shape_and_miss_no_token() {
    let server = says("Zoë x");
    let body = json!({"prompt": "Say", "logprobs": 2});
    let answer = server.post(PATH, body.clone()).await;
    let logprobs = answer["choices"][0]["logprobs"].clone();
    assert_snapshot!(pretty(&logprobs));

    let events = server.stream(PATH, body).await;
    for list in ["text_offset", "token_logprobs", "tokens", "top_logprobs"] {
        let streamed: Vec<&Value> = events.iter().filter_map(|e| e["choices"][0]["logprobs"][list].as_array()).flatten().collect();
        assert_eq!(streamed, logprobs[list].as_array().unwrap().iter().collect::<Vec<_>>(), "{list}");
    }
}

#[tokio::test]
async fn ignore_eos_goes_on_to_max_tokens() {
    let server = says("x");
    let answer = server.post(PATH, json!({"prompt": "Say", "ignore_eos": true, "max_tokens": 9})).await;
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["text"], "x");
    let shown = json!({"prompt": "Say", "ignore_eos": true, "max_tokens": 3, "skip_special_tokens": false});
    assert_eq!(server.post(PATH, shown).await["choices"][0]["text"], "x<|im_end|><|im_end|>");
}

#[tokio::test]
async fn stop_token_ids_end_the_text_before_the_token() {
    let server = says("a\nb");
    let newline = server.tokenizer.encode("\n", false).unwrap();
    let answer = server.post(PATH, json!({"prompt": "Say", "stop_token_ids": newline})).await;
    assert_eq!(answer["choices"][0]["text"], "a");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["stop_reason"], newline[0]);
}
