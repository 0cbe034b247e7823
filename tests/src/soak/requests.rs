//! Bodies: what well-behaved clients ask for, and what they get wrong.

use serde_json::{Map, Value, json};

use crate::random::Random;

const WORDS: &str = "What is ownership? A vector is a contiguous growable array type, and a trait tells what types have in common. pub fn main() { } \
                     Iterators are lazy: they do nothing until they are asked for the next item. Ünïcödé, 文字 and 🦀 are text too.";

/// A request that must be answered.
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) body: Value,
    /// Choices that the answer must have.
    pub(super) choices: usize,
    /// What a choice that ended by itself must satisfy.
    pub(super) promise: Option<Promise>,
}

pub(super) enum Promise {
    Json,
    OneOf(&'static [&'static str]),
}

/// As the engine calls its demo model.
const MODEL: &str = "tokenflow-demo";

const ANSWERS: &[&str] = &["yes", "no", "perhaps later"];

pub(super) fn good(random: &mut Random, stream: bool) -> Request {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    let is_chat = random.one_in(2);
    let mut choices = 1;
    if is_chat {
        put("messages", json!([{"role": "user", "content": text(random)}]));
    } else if random.one_in(4) {
        choices = 1 + random.below(3) as usize;
        put("prompt", (0..choices).map(|_| text(random)).collect());
    } else if random.one_in(4) {
        put("prompt", (0..1 + random.below(200)).map(|_| random.below(3000)).collect());
    } else {
        put("prompt", json!(text(random)));
    }
    let max_tokens = if random.one_in(10) { 150 } else { 1 + random.below(40) };
    put("max_tokens", json!(max_tokens));
    put("stream", json!(stream));
    if random.one_in(3) {
        put("ignore_eos", json!(true));
    }
    if random.one_in(2) {
        put("temperature", json!(random.below(15) as f64 / 10.0));
        put("top_p", json!(0.5 + random.below(50) as f64 / 100.0));
        put("top_k", json!(random.below(50)));
        put("min_p", json!(random.below(3) as f64 / 10.0));
        put("seed", json!(random.below(1000)));
    }
    if random.one_in(3) {
        put("stop", random.choose(&[json!("."), json!([" the", "\n"]), json!("never said")]).clone());
    }
    if random.one_in(8) {
        put("stop_token_ids", json!([random.below(3000)]));
    }
    if random.one_in(6) {
        let n = 2 + random.below(3);
        choices *= n as usize;
        put("n", json!(n));
        // More than one answer makes sense only where they differ.
        put("temperature", json!(0.7));
    }
    if random.one_in(6) {
        put("priority", json!(random.below(5) as i64 - 2));
    }
    if random.one_in(6) {
        put("frequency_penalty", json!(random.below(20) as f64 / 10.0));
        put("repetition_penalty", json!(1.1));
        put("logit_bias", json!({"17": -20, "23": 3.5}));
    }
    if random.one_in(6) {
        if is_chat {
            put("logprobs", json!(true));
            put("top_logprobs", json!(random.below(5)));
        } else {
            put("logprobs", json!(random.below(5)));
        }
    }
    let mut promise = None;
    if random.one_in(8) {
        if random.one_in(2) {
            let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "maximum": 99, "minimum": 0}},
                                "required": ["ok", "n"], "additionalProperties": false});
            put("response_format", json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}));
            promise = Some(Promise::Json);
        } else {
            put("structured_outputs", json!({"choice": ANSWERS}));
            promise = Some(Promise::OneOf(ANSWERS));
        }
        // What stops elsewhere promises nothing.
        put("stop", Value::Null);
        put("stop_token_ids", Value::Null);
        put("ignore_eos", json!(false));
        put("logit_bias", Value::Null);
    }
    if stream && random.one_in(2) {
        put("stream_options", json!({"include_usage": random.one_in(2), "include_health": random.one_in(2)}));
    }
    let path = if is_chat { "/v1/chat/completions" } else { "/v1/completions" };
    Request { path, body: Value::Object(body), choices, promise }
}

/// A route of another API in its text form, a body for it, and the event that ends its streams.
pub(super) fn other_route(random: &mut Random, stream: bool) -> (&'static str, Value, &'static [&'static str]) {
    let max_tokens = 1 + random.below(30);
    let temperature = random.below(10) as f64 / 10.0;
    if random.one_in(2) {
        let messages = json!([{"role": "user", "content": text(random)}]);
        let body = json!({"model": MODEL, "max_tokens": max_tokens, "messages": messages, "temperature": temperature, "stream": stream});
        ("/v1/messages", body, &["message_stop"])
    } else {
        let body =
            json!({"model": MODEL, "max_output_tokens": max_tokens, "input": text(random), "temperature": temperature, "stream": stream});
        ("/v1/responses", body, &["response.completed", "response.incomplete"])
    }
}

/// A chat that must end in a call of its tool, or for want of tokens.
pub(super) fn tool_chat(random: &mut Random) -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 0, "maximum": 99}},
                            "required": ["city", "days"], "additionalProperties": false});
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": parameters}});
    let choice = random.choose(&[json!("required"), json!({"type": "function", "function": {"name": "weather"}})]).clone();
    json!({"messages": [{"role": "user", "content": text(random)}], "tools": [tool], "tool_choice": choice, "max_tokens": 20 + random.below(80),
           "temperature": random.below(12) as f64 / 10.0})
}

/// A piece of the words, from a few letters to more than fits into one step.
fn text(random: &mut Random) -> String {
    let characters = WORDS.chars().count() as u64;
    let (start, length) = (random.below(characters), 1 + random.below(characters));
    let text: String = WORDS.chars().cycle().skip(start as usize).take(length as usize).collect();
    if text.trim().is_empty() { "x".to_owned() } else { text }
}

/// A path and a body that deserve a refusal.
pub(super) fn bad(random: &mut Random) -> (&'static str, String) {
    let completion = |fields: Value| ("/v1/completions", fields.to_string());
    match random.below(16) {
        0 => ("/v1/completions", "{".to_owned()),
        1 => ("/v1/chat/completions", "[]".to_owned()),
        2 => ("/v1/completions", String::new()),
        3 => ("/v1/nothing", "{}".to_owned()),
        4 => ("/v1/chat/completions", json!({"messages": []}).to_string()),
        5 => ("/v1/chat/completions", json!({"messages": [{"role": "user"}]}).to_string()),
        6 => completion(json!({"prompt": "x", "temperature": -1})),
        7 => completion(json!({"prompt": "x", "max_tokens": 1_000_000})),
        8 => completion(json!({"prompt": "x", "model": "somebody else's"})),
        9 => completion(json!({"prompt": [99_999_999]})),
        10 => completion(json!({"prompt": ""})),
        11 => completion(json!({"prompt": "x".repeat(200_000)})),
        12 => completion(json!({"prompt": "x", "stop": [""]})),
        13 => completion(json!({"prompt": "x", "top_p": "high"})),
        14 => ("/tokenize", json!({"prompt": 7}).to_string()),
        _ => ("/detokenize", json!({"tokens": [-1]}).to_string()),
    }
}
