//! Sampling parameters do what they say, through HTTP and a real model.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    model::{ModelServer, texts},
    server::says,
};

#[tokio::test]
async fn choices_differ_by_seed_and_each_can_be_repeated() {
    let server = ModelServer::start();
    let answer = server.complete(json!({"n": 3, "seed": 7})).await;
    let indices: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|c| c["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(texts(&answer).into_iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!(texts(&server.complete(json!({"n": 3, "seed": 7})).await), texts(&answer));
    for (i, text) in texts(&answer).into_iter().enumerate() {
        assert_eq!(texts(&server.complete(json!({"seed": 7 + i})).await), [text]);
    }
    let chat = server.chat(json!({"n": 2, "seed": 7})).await;
    assert_ne!(chat["choices"][0]["message"]["content"], chat["choices"][1]["message"]["content"]);
    let unseeded = server.complete(json!({"n": 2, "seed": -1})).await;
    assert_ne!(texts(&unseeded)[0], texts(&unseeded)[1]);
}

#[tokio::test]
async fn streamed_choices_are_those_of_the_whole_answer() {
    let server = ModelServer::start();
    let fields = json!({"n": 3, "seed": 11, "prompt": ["Say", "Hear that"], "stop": ["a"]});
    let whole = server.complete(fields.clone()).await;
    let mut fields = fields;
    fields["stream_options"] = json!({"include_usage": true});
    let mut chunks = server.stream(fields).await;
    let usage = chunks.pop().unwrap();
    assert_eq!(usage["choices"], json!([]));
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(usage["usage"][count], whole["usage"][count], "{count}");
    }
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let mine: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]).filter(|c| c["index"] == index).collect();
        assert_eq!(mine.iter().map(|c| c["text"].as_str().unwrap()).collect::<String>(), choice["text"]);
        let ends: Vec<_> = mine.iter().filter(|c| !c["finish_reason"].is_null()).collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0]["finish_reason"], choice["finish_reason"]);
        assert_eq!(ends[0].get("stop_reason"), choice.get("stop_reason"));
    }
}

#[tokio::test]
async fn a_prompt_is_counted_once_for_all_its_choices() {
    let server = ModelServer::start();
    let answer = server.complete(json!({"n": 3, "prompt": [[5, 6, 7], [8, 9]], "ignore_eos": true, "max_tokens": 4})).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(answer["usage"]["completion_tokens"], 24);
}

#[tokio::test]
async fn the_best_are_shown() {
    let server = ModelServer::start();
    let all = server.complete(json!({"n": 4, "seed": 3, "logprobs": 0})).await;
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|p| p.as_f64().unwrap()).sum::<f64>() / logprobs.len() as f64
    };
    let mut choices = all["choices"].as_array().unwrap().clone();
    choices.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = server.complete(json!({"n": 2, "best_of": 4, "seed": 3})).await;
    assert_eq!(texts(&best), [choices[0]["text"].as_str().unwrap(), choices[1]["text"].as_str().unwrap()]);
    assert_eq!(best["choices"][0]["logprobs"], Value::Null);
    assert_eq!(best["usage"], all["usage"]);
}

#[tokio::test]
async fn biases_and_bans_steer_the_choice() {
    let server = ModelServer::start();
    let ids = |answer: &Value| -> Vec<u64> {
        answer["choices"][0]["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    };
    let greedy = |mut fields: Value| {
        fields["temperature"] = json!(0);
        fields["return_token_ids"] = json!(true);
        fields["ignore_eos"] = json!(true);
        server.complete(fields)
    };
    let plain = ids(&greedy(json!({})).await);
    assert_eq!(ids(&greedy(json!({"logit_bias": {"77": 100}})).await), [77; 12]);
    let banned = ids(&greedy(json!({"logit_bias": {plain[0].to_string(): -100}})).await);
    assert!(!banned.contains(&plain[0]));
    assert!(ids(&greedy(json!({"allowed_token_ids": [300, 301]})).await).iter().all(|id| [300, 301].contains(id)));

    let word = server.tokenizer.token_text(plain[1] as u32);
    let without = greedy(json!({"bad_words": [word]})).await;
    assert!(!word.trim().is_empty() && !ids(&without).contains(&plain[1]), "{word:?}");

    let repeated = ids(&greedy(json!({"allowed_token_ids": [300, 301, 302, 303, 304], "frequency_penalty": 2.0})).await);
    let counts = (300..305).map(|id| repeated.iter().filter(|&&t| t == id).count());
    assert!(counts.clone().all(|n| n >= 1), "{:?}", counts.collect::<Vec<_>>());
    let with_prompt = json!({"prompt": [300, 301], "allowed_token_ids": [300, 301, 302], "repetition_penalty": 50.0, "max_tokens": 1});
    let from_prompt = ids(&greedy(with_prompt).await);
    // The token's logit may be negative: what matters is that the prompt's tokens are penalised, others not.
    assert_eq!(from_prompt, [302]);
}

#[tokio::test]
async fn nothing_stops_before_min_tokens() {
    let server = ModelServer::start();
    let stop = json!({"allowed_token_ids": [300, 301], "stop_token_ids": [300], "temperature": 0, "logit_bias": {"300": 100}});
    let with = |min_tokens: usize| {
        let mut fields = stop.clone();
        fields["min_tokens"] = json!(min_tokens);
        server.complete(fields)
    };
    assert_eq!(with(0).await["usage"]["completion_tokens"], 1);
    let answer = with(5).await;
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    assert_eq!(answer["choices"][0]["stop_reason"], 300);

    let scripted = says("a b a b a b");
    let answer = scripted.post("/v1/completions", json!({"prompt": "Say", "stop": "b", "min_tokens": 3})).await;
    assert!(answer["choices"][0]["text"].as_str().unwrap().starts_with("a b"), "{answer}");
}

#[tokio::test]
async fn what_stopped_it_is_shown_when_asked_for() {
    let server = says("one two three");
    let stop = json!({"prompt": "Say", "stop": " two", "include_stop_str_in_output": true});
    let answer = server.post("/v1/completions", stop).await;
    assert_eq!(answer["choices"][0]["text"], "one two");
    assert_eq!(answer["choices"][0]["stop_reason"], " two");
    let shown = json!({"prompt": "Say", "skip_special_tokens": false, "include_stop_str_in_output": true});
    assert_eq!(server.post("/v1/completions", shown).await["choices"][0]["text"], "one two three<|im_end|>");
}

#[tokio::test]
async fn an_echo_begins_with_the_prompt() {
    let server = says("out");
    let ids = server.tokenizer.encode("Say it", true).unwrap();
    for prompt in [json!("Say it"), json!(ids)] {
        let body = json!({"prompt": prompt, "echo": true, "return_token_ids": true});
        let answer = server.post("/v1/completions", body.clone()).await;
        assert_eq!(answer["choices"][0]["text"], "Say itout");
        assert_eq!(answer["choices"][0]["prompt_token_ids"], json!(ids));
        let streamed: String =
            server.stream("/v1/completions", body).await.iter().map(|e| e["choices"][0]["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(streamed, "Say itout");
    }
    let only = server.post("/v1/completions", json!({"prompt": "Say it", "echo": true, "max_tokens": 0})).await;
    assert_eq!(only["choices"][0]["text"], "Say it");
    assert_eq!(only["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn ids_are_shown_when_asked_for() {
    let server = says("Zoë x");
    let body = json!({"prompt": "Say", "return_token_ids": true, "logprobs": 1, "return_tokens_as_token_ids": true});
    let answer = server.post("/v1/completions", body.clone()).await;
    let choice = &answer["choices"][0];
    let ids: Vec<u32> = serde_json::from_value(choice["token_ids"].clone()).unwrap();
    assert_eq!(server.tokenizer.decode(&ids, true).unwrap(), "Zoë x");
    assert_eq!(choice["prompt_token_ids"], json!(server.tokenizer.encode("Say", true).unwrap()));
    assert_eq!(choice["logprobs"]["tokens"][0], format!("token_id:{}", ids[0]));
    assert!(choice["logprobs"]["top_logprobs"][0].get(format!("token_id:{}", ids[0])).is_some());

    let chunks = server.stream("/v1/completions", body).await;
    assert_eq!(chunks[0]["choices"][0]["prompt_token_ids"], choice["prompt_token_ids"]);
    assert!(chunks[1]["choices"][0].get("prompt_token_ids").is_none());
    let streamed = chunks.iter().flat_map(|c| c["choices"][0]["token_ids"].as_array().unwrap().clone());
    assert_eq!(Value::Array(streamed.collect()), choice["token_ids"]);

    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "return_token_ids": true, "logprobs": true, "return_tokens_as_token_ids": true});
    let answer = server.post("/v1/chat/completions", chat.clone()).await;
    assert_eq!(answer["choices"][0]["token_ids"], choice["token_ids"]);
    assert_eq!(answer["choices"][0]["logprobs"]["content"][0]["token"], format!("token_id:{}", ids[0]));
    assert_eq!(answer["prompt_token_ids"].as_array().unwrap().len() as u64, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    let chunks = server.stream("/v1/chat/completions", chat).await;
    assert_eq!(chunks[0]["prompt_token_ids"], answer["prompt_token_ids"]);
}

#[tokio::test]
async fn a_prompt_is_cut_at_the_wanted_end() {
    let server = ModelServer::start();
    let shown = |fields: Value| async {
        let mut fields = fields;
        fields["return_token_ids"] = json!(true);
        server.complete(fields).await["choices"][0]["prompt_token_ids"].clone()
    };
    let prompt = json!([5, 6, 7, 8, 9]);
    assert_eq!(shown(json!({"prompt": prompt, "truncate_prompt_tokens": 2})).await, json!([8, 9]));
    assert_eq!(shown(json!({"prompt": prompt, "truncate_prompt_tokens": 2, "truncation_side": "right"})).await, json!([5, 6]));
    assert_eq!(shown(json!({"prompt": prompt, "truncate_prompt_tokens": 7})).await, prompt);
    let long = "word ".repeat(10_000);
    let kept = shown(json!({"prompt": long, "truncate_prompt_tokens": -1, "max_tokens": 1})).await;
    assert_eq!(kept.as_array().unwrap().len(), server.engine.info().max_model_len - 1);
    let chat = server.chat(json!({"truncate_prompt_tokens": 3})).await;
    assert_eq!(chat["usage"]["prompt_tokens"], 3);
}

#[tokio::test]
async fn fields_that_change_nothing_are_taken() {
    let server = says("x");
    let ignored = json!({
        "user": "u", "metadata": {"a": "b"}, "service_tier": "auto", "store": true, "parallel_tool_calls": true, "safety_identifier": "s",
        "prompt_cache_key": "k", "length_penalty": 2.0, "spaces_between_special_tokens": false, "n": 1, "best_of": 1, "echo": false,
        "logit_bias": {}, "bad_words": [], "stop": [], "stop_token_ids": [], "priority": 0, "cache_salt": "pepper", "request_id": "r",
        "session_id": "s", "unknown_field": [1], "repetition_penalty": 1.0, "presence_penalty": null, "response_format": {"type": "text"},
        "structured_outputs": null, "truncate_prompt_tokens": null, "seed": null, "suffix": "",
    });
    for (path, prompt) in
        [("/v1/completions", json!({"prompt": "p"})), ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}]}))]
    {
        let mut body = ignored.clone();
        body.as_object_mut().unwrap().extend(prompt.as_object().unwrap().clone());
        assert_eq!(server.post(path, body).await["choices"][0]["finish_reason"], "stop", "{path}");
    }
}

/// What the model said of its own tokens, one by one, it says again of the same tokens in a prompt, however that is cut into steps.
#[tokio::test]
async fn a_prompts_log_probabilities_are_those_of_generating_it() {
    let server = ModelServer::start();
    let said = server.complete(json!({"prompt": [40, 41, 42], "temperature": 0, "ignore_eos": true, "max_tokens": 100, "logprobs": 2, "return_token_ids": true, "return_tokens_as_token_ids": true})).await;
    let said = &said["choices"][0];
    let prompt: Vec<u64> =
        [40, 41, 42].into_iter().chain(said["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap())).collect();
    for max_num_batched_tokens in [2048, 7] {
        let server = ModelServer::with(|config| config.max_num_batched_tokens = max_num_batched_tokens);
        let scored = server.complete(json!({"prompt": prompt, "prompt_logprobs": 2, "max_tokens": 1, "n": 2})).await;
        for choice in scored["choices"].as_array().unwrap() {
            let entries = choice["prompt_logprobs"].as_array().unwrap();
            assert_eq!((entries.len(), &entries[0]), (prompt.len(), &Value::Null));
            for (i, id) in prompt.iter().enumerate().skip(1) {
                let own = &entries[i][id.to_string()];
                assert!(own["rank"].as_u64().unwrap() >= 1);
                if i >= 3 {
                    assert_eq!(own["logprob"], said["logprobs"]["token_logprobs"][i - 3], "{i}");
                    assert_eq!(own["rank"], 1);
                    let top = said["logprobs"]["top_logprobs"][i - 3].as_object().unwrap();
                    for (name, logprob) in top {
                        let ours = entries[i][name.strip_prefix("token_id:").unwrap()]["logprob"].as_f64().unwrap();
                        assert_eq!(ours as f32, logprob.as_f64().unwrap() as f32, "{i}");
                    }
                }
            }
        }
        let echo = json!({"prompt": prompt, "echo": true, "logprobs": 2, "max_tokens": 0, "return_tokens_as_token_ids": true});
        let echoed = server.complete(echo.clone()).await["choices"][0]["logprobs"].clone();
        let count = |list: &str| echoed[list].as_array().unwrap().len();
        assert_eq!(["tokens", "token_logprobs", "top_logprobs", "text_offset"].map(count), [prompt.len(); 4]);
        assert_eq!((&echoed["token_logprobs"][0], &echoed["top_logprobs"][0]), (&Value::Null, &Value::Null));
        assert_eq!(echoed["token_logprobs"].as_array().unwrap()[3..], said["logprobs"]["token_logprobs"].as_array().unwrap()[..]);
        let streamed = server.stream(echo).await;
        assert_eq!(streamed[0]["choices"][0]["logprobs"], echoed);
    }
    let chat = server.chat(json!({"prompt_logprobs": 0})).await;
    assert_eq!(chat["prompt_logprobs"].as_array().unwrap().len() as u64, chat["usage"]["prompt_tokens"].as_u64().unwrap());
}
