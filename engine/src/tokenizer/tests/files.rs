use std::{fs, path::Path};

use proptest::prelude::*;

use super::{FIXTURE, byte_fallback, fixture};
use crate::tokenizer::{Tokenizer, TokenizerError};

fn error(result: Result<Tokenizer, TokenizerError>) -> String {
    match result {
        Ok(_) => panic!("an error"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn text_survives_the_round_trip() {
    let tokenizer = fixture();
    let ids = tokenizer.encode("def f(x):\n    return x  # Zoë 👋", true).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "def f(x):\n    return x  # Zoë 👋");
    assert_eq!(tokenizer.vocab_size(), 1024);
    assert_eq!(tokenizer.token_text(1), "<|im_end|>");
    assert_eq!(tokenizer.decode(&[5000], true).unwrap(), "");
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let message = error(Tokenizer::from_dir(dir.path()));
    assert!(message.contains("tokenizer.json cannot be read: "), "{message}");
    assert!(!message.contains('\n'));
}

#[test]
fn a_corrupt_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(Path::new(FIXTURE).join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("tokenizer.json"), &good[..good.len() / 2]).unwrap();
    let message = error(Tokenizer::from_dir(dir.path()));
    assert!(message.contains("tokenizer.json is not a usable tokenizer file: "), "{message}");

    fs::write(dir.path().join("tokenizer.json"), &good).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"bos_token": 3}"#).unwrap();
    let message = error(Tokenizer::from_dir(dir.path()));
    assert!(message.contains("tokenizer_config.json is not a usable tokenizer file: a special token must be"), "{message}");

    fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let message = error(Tokenizer::from_dir(dir.path()));
    assert!(message.contains("chat_template.jinja is not valid: "), "{message}");
}

#[test]
fn the_template_comes_from_its_file_then_from_the_default_of_a_named_list() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(Path::new(FIXTURE).join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let render = || {
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        tokenizer.chat_template().map(|t| t.render(Vec::new(), true, serde_json::Map::new()).unwrap())
    };
    assert_eq!(render(), None);

    let named = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": null,
        "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}{{ eos_token }}"}]}"#;
    fs::write(dir.path().join("tokenizer_config.json"), named).unwrap();
    assert_eq!(render().as_deref(), Some("D<s>"));

    fs::write(dir.path().join("chat_template.jinja"), "J").unwrap();
    assert_eq!(render().as_deref(), Some("J"));
}

#[test]
fn no_text_has_fewer_tokens_than_its_longest_allow() {
    for tokenizer in [fixture(), byte_fallback()] {
        let most = tokenizer.max_bytes_per_token();
        let tokens = (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token_text(id));
        for text in tokens.chain(["\u{1fbe}\u{308}\u{301}".repeat(100), " ".repeat(1000)]) {
            let count = tokenizer.encode(&text, false).unwrap().len();
            assert!(text.len() <= count * most, "{text:?}: {count} tokens of at most {most} bytes");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_files_are_refused_and_never_a_panic(json in "\\PC{0,80}", config in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Tokenizer::from_bytes(json.as_bytes(), Some(&config), None);
        let good = fs::read(Path::new(FIXTURE).join("tokenizer.json")).unwrap();
        let _ = Tokenizer::from_bytes(&good, Some(&config), Some(&config));
    }
}
