//! Greedy output of the real engine does not depend on how it runs: alone or in company, in which chunks, on how many blocks, at which
//! rate. That pacing by a real link changes nothing either is shown in `congestion.rs`.

use std::thread;

use serde_json::{Value, json};
use tokenflow_tests::{daemon, http};

const PROMPTS: [&str; 6] = [
    "What is ownership?",
    "pub fn main() {",
    "A vector is a contiguous growable array type, written as Vec<T>, short for vector. Vectors have O(1) indexing and amortized push, \
     and they ensure that they never allocate more than isize::MAX bytes. You can explicitly create one with new, and then push values \
     onto the end, which will grow it as needed. Popping values works in much the same way, and so does indexing.",
    "The",
    "Iterators are lazy:",
    "Strings in Rust",
];

const MAX_TOKENS: usize = 80;

/// Greedy completions of every prompt, all asked at once, `company` other requests beside them; and how often a request was preempted.
fn completions(flags: &[&str], company: usize, stream: bool) -> (Vec<String>, f64) {
    let mut all = vec!["--hint-url", "none"];
    all.extend(flags);
    let engine = daemon::engine(&all).unwrap();
    let ask = |prompt: &str, temperature: f64| {
        let body = json!({
            "prompt": prompt, "max_tokens": MAX_TOKENS, "ignore_eos": true, "temperature": temperature, "seed": 5, "stream": stream,
            // Tokens, since a text lacks the special ones.
            "logprobs": 0,
        });
        if stream { streamed(&engine.url, &body) } else { whole(&engine.url, &body) }
    };
    let tokens = thread::scope(|scope| {
        for i in 0..company {
            scope.spawn(move || ask(&format!("company number {i} talks on and on"), 1.0));
        }
        let readers: Vec<_> = PROMPTS.iter().map(|prompt| scope.spawn(move || ask(prompt, 0.0))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let metrics = http::get_text(&engine.url, "/metrics").unwrap();
    let preemptions = metrics.lines().find(|line| line.starts_with("vllm:num_preemptions_total")).unwrap();
    (tokens, preemptions.rsplit(' ').next().unwrap().parse().unwrap())
}

fn whole(url: &str, body: &Value) -> String {
    let (status, answer) = http::post_json(url, "/v1/completions", body).unwrap();
    assert_eq!(status, 200, "{answer}");
    tokens(&answer)
}

fn streamed(url: &str, body: &Value) -> String {
    let text = http::send(http::address(url).unwrap(), "POST", "/v1/completions", Some(body)).unwrap().read_all().unwrap();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    events.map(|data| tokens(&serde_json::from_str(data).unwrap())).collect()
}

fn tokens(answer: &Value) -> String {
    let tokens = answer["choices"][0]["logprobs"]["tokens"].as_array();
    tokens.into_iter().flatten().map(|token| format!("{token} ")).collect()
}

#[test]
fn greedy_output_does_not_depend_on_how_the_engine_runs() {
    let (reference, _) = completions(&["--max-num-seqs", "1"], 0, false);
    assert!(reference.iter().all(|tokens| tokens.split(' ').count() >= MAX_TOKENS));
    let ways: [(&str, &[&str], usize, bool); 7] = [
        ("together", &[], 0, false),
        ("in company, streamed", &[], 24, true),
        ("in small chunks", &["--max-num-batched-tokens", "7"], 4, false),
        ("in small blocks", &["--block-size", "4"], 4, false),
        ("preempted", &["--num-gpu-blocks-override", "14"], 4, true),
        ("on one thread", &["--threads", "1"], 2, false),
        ("capped", &["--max-stream-rate", "200"], 2, true),
    ];
    for (name, flags, company, stream) in ways {
        let (output, preemptions) = completions(flags, company, stream);
        assert_eq!(preemptions > 0.0, name == "preempted", "{name}: {preemptions} preemptions");
        for (i, (got, expected)) in output.iter().zip(&reference).enumerate() {
            assert_eq!(got, expected, "{name}: prompt {i}");
        }
    }
}
