//! A tokenizer for any number of tokens: the bytes, and words that no text is made into.

use serde_json::{Map, Value, json};

pub(super) fn json(vocabulary: usize) -> Value {
    let tokens = byte_characters().map(String::from).chain((256..).map(|id| format!("<{id}>")));
    let vocab: Map<String, Value> = tokens.take(vocabulary).zip(0u32..).map(|(token, id)| (token, id.into())).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []},
    })
}

/// What GPT-2's byte-level vocabularies call the bytes: themselves where they are printable, else characters from U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    (0..256u32).map(move |byte| {
        let code = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).expect("a character")
    })
}

#[cfg(test)]
mod tests {
    use tokenflow_engine::tokenizer::Tokenizer;

    use super::*;

    #[test]
    fn every_byte_is_a_token() {
        let tokenizer = Tokenizer::from_bytes(json(300).to_string().as_bytes(), None, None).unwrap();
        let ids = tokenizer.encode("Aé\n ", false).unwrap();
        assert_eq!(ids, [0x41, 0xc3, 0xa9, 0x0a, 0x20]);
    }
}
