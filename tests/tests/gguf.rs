//! GGUF files that the `gguf` package from PyPI wrote say what the same model says as a folder of dequantised weights.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tokenflow_tests::{daemon, http, python};

const MODELS: [&str; 14] = [
    "llama-f32",
    "llama-f16",
    "llama-bf16",
    "llama-q8_0",
    "llama-q4_0",
    "llama-q4_k",
    "llama-q5_k",
    "llama-q6_k",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "mixtral",
    "gemma3",
    "split",
];
/// Of a log-probability in float32, which decodes blocks exactly; what is seen is a hundredth of it.
const TOLERANCE: f64 = 1e-3;
const NEW_TOKENS: usize = 16;

/// The folder that tests/conformance/write_gguf.py fills; `None` where there is no Python for it.
fn written() -> Option<tempfile::TempDir> {
    let interpreter = match python::interpreter() {
        Ok(interpreter) => interpreter,
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "in CI the package must be there: {reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tokenizer = here.join("../engine/fixtures/qwen3/tokenizer.json");
    let output = Command::new(interpreter).arg(here.join("conformance/write_gguf.py")).arg(folder.path()).arg(tokenizer).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(folder)
}

/// A model that is served.
struct Served {
    engine: daemon::Daemon,
}

impl Served {
    fn start(model: &Path) -> Self {
        let model = model.to_str().unwrap();
        let flags = ["--dtype", "float32", "--served-model-name", "m", "--hint-url", "none", "--kv-cache-memory-bytes", "32m"];
        Self { engine: daemon::engine(&[&[model], &flags[..]].concat()).unwrap() }
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = http::post_json(&self.engine.url, path, &body).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn token_ids(&self, text: &str) -> Value {
        self.post("/tokenize", json!({"prompt": text, "add_special_tokens": false}))["tokens"].take()
    }

    fn text(&self, ids: &Value) -> Value {
        self.post("/detokenize", json!({"tokens": ids}))["prompt"].take()
    }

    /// Greedy tokens, and the log-probabilities of the likeliest at each.
    fn continuation(&self) -> Vec<(String, Vec<(String, f64)>)> {
        let prompt: Vec<usize> = (0..40).map(|i| 3 + i * 37 % 1000).collect();
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": true, "logprobs": 5});
        let mut answer = self.post("/v1/completions", body);
        let logprobs = answer["choices"][0]["logprobs"].take();
        let tokens = logprobs["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned());
        let likeliest = |top: &Value| {
            let mut top: Vec<_> = top.as_object().unwrap().iter().map(|(token, p)| (token.clone(), p.as_f64().unwrap())).collect();
            top.sort_by(|a, b| b.1.total_cmp(&a.1));
            top
        };
        tokens.zip(logprobs["top_logprobs"].as_array().unwrap().iter().map(likeliest)).collect()
    }
}

fn gguf_of(folder: &Path, name: &str) -> PathBuf {
    let whole = folder.join(format!("{name}.gguf"));
    if whole.exists() { whole } else { folder.join(format!("{name}-00001-of-00003.gguf")) }
}

#[test]
fn files_from_the_gguf_package_say_what_their_weights_say() {
    let Some(folder) = written() else { return };
    for name in MODELS {
        let ours = Served::start(&gguf_of(folder.path(), name)).continuation();
        let reference = Served::start(&folder.path().join(name)).continuation();
        assert_eq!((ours.len(), reference.len()), (NEW_TOKENS, NEW_TOKENS), "{name}");
        let (mut worst, mut compared) = (0f64, 0);
        for (at, ((token, top), (expected, expected_top))) in ours.iter().zip(&reference).enumerate() {
            for (likely, p) in top {
                if let Some((_, expected)) = expected_top.iter().find(|(other, _)| other == likely) {
                    worst = worst.max((p - expected).abs());
                }
            }
            assert!(worst <= TOLERANCE, "{name}: a log-probability at {at} differs by {worst}");
            compared += 1;
            if token != expected {
                let gap = expected_top[0].1 - expected_top[1].1;
                assert!(gap <= 2.0 * TOLERANCE, "{name}: \"{token}\" at {at} where \"{expected}\" leads by {gap}");
                // From here on the texts differ.
                break;
            }
        }
        assert!(compared > 1, "{name}: nothing was compared");
        println!("{name}: log-probabilities within {worst:.5} over {compared} tokens");
    }
}

#[test]
fn tokenizers_in_gguf_files_are_the_models() {
    let Some(folder) = written() else { return };
    let texts: Vec<(String, Value)> = serde_json::from_slice(&std::fs::read(folder.path().join("texts.json")).unwrap()).unwrap();
    let (byte_level, reference) = (Served::start(&gguf_of(folder.path(), "qwen2")), Served::start(&folder.path().join("qwen2")));
    let pieces = Served::start(&gguf_of(folder.path(), "pieces"));
    for (text, expected) in &texts {
        let ids = byte_level.token_ids(text);
        assert_eq!(ids, reference.token_ids(text), "{text:?}");
        assert_eq!(byte_level.text(&ids), json!(text));
        assert_eq!(pieces.token_ids(text), *expected, "{text:?}");
        // SentencePiece's own sign for a space comes back as one.
        assert_eq!(pieces.text(expected), json!(text.replace('▁', " ")));
    }
    let special = "<|im_start|>user\nhi<|im_end|>";
    assert_eq!(byte_level.token_ids(special), reference.token_ids(special));
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let from_template = byte_level.post("/tokenize", chat)["tokens"].take();
    assert_eq!(from_template, byte_level.token_ids("hi"));
}
