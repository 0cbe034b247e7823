//! `tokenizer_config.json`, and the chat template that it has or is: compiled, then rendered for a chat with tools.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use tokenflow_engine::tokenizer::{ChatTemplate, Tokenizer};

const TOKENIZER: &[u8] = include_bytes!("../../fixtures/qwen3/tokenizer.json");

static MESSAGES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let call = json!({"type": "function", "id": "c", "function": {"name": "f", "arguments": {"a": 1}}});
    vec![
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Hello"}),
        json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "c", "content": "1"}),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    if bytes.first() == Some(&b'{') && bytes.get(1) == Some(&b'"') {
        let _ = Tokenizer::from_bytes(TOKENIZER, Some(bytes), None);
        return;
    }
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    if let Ok(template) = ChatTemplate::new(source, Some("<s>".into()), Some("</s>".into()), "template") {
        let _ = template.render(MESSAGES.clone(), true, Map::new());
    }
});
