use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::json;

use crate::server::says;

#[tokio::test]
async fn tokenize_counts_and_detokenize_returns_the_text() {
    let server = says("");
    let tokenized = server.post("/tokenize", json!({"model": "q", "prompt": "hello world", "return_token_strs": true})).await;
    let tokens = tokenized["tokens"].as_array().unwrap();
    assert_eq!(tokenized["count"], tokens.len());
    assert_eq!(tokenized["max_model_len"], 128);
    assert_eq!(tokenized["token_strs"].as_array().unwrap().len(), tokens.len());
    assert_eq!(server.post("/detokenize", json!({"tokens": tokens})).await, json!({"prompt": "hello world"}));
    let plain = server.post("/tokenize", json!({"prompt": "hello world"})).await;
    assert_eq!(plain.as_object().unwrap().keys().collect::<Vec<_>>(), ["count", "max_model_len", "tokens", "token_strs"]);
    assert!(plain["token_strs"].is_null());
}

#[tokio::test]
async fn a_chat_is_tokenized_as_the_chat_route_reads_it() {
    let server = says("x");
    let chat = json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]});
    let tokenized = server.post("/tokenize", chat.clone()).await;
    let text = server.post("/detokenize", json!({"tokens": tokenized["tokens"]})).await;
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text["prompt"], expected);
    assert_eq!(server.post("/v1/chat/completions", chat).await["usage"]["prompt_tokens"], tokenized["count"]);
}

#[tokio::test]
async fn long_texts_mean_what_short_ones_do_however_many_come_at_once() {
    let server = says("");
    let line = "def f(x):\n    return x  # Zoë\n";
    let once = server.post("/tokenize", json!({"prompt": line})).await["count"].as_u64().unwrap();
    let text = line.repeat(1000);
    let round_trips = (0..20).map(|_| async {
        let body = json!({"prompt": text, "return_token_strs": true});
        let tokenized = server.post("/tokenize", body).await;
        assert_eq!(tokenized["count"], once * 1000);
        assert_eq!(tokenized["token_strs"].as_array().unwrap().len() as u64, once * 1000);
        assert_eq!(server.post("/detokenize", json!({"tokens": tokenized["tokens"]})).await["prompt"], text);
    });
    join_all(round_trips).await;

    let prompts: Vec<&str> = std::iter::repeat_n(line, 1000).collect();
    let usage = server.post("/v1/completions", json!({"prompt": prompts, "max_tokens": 1})).await["usage"].clone();
    assert_eq!(usage["prompt_tokens"], once * 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_text_survives_the_round_trip(text in "\\PC{0,60}") {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let server = says("");
            let tokenized = server.post("/tokenize", json!({"prompt": text})).await;
            assert_eq!(server.post("/detokenize", json!({"tokens": tokenized["tokens"]})).await["prompt"], text);
        });
    }
}
