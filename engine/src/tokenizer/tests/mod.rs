mod detokenizer;
mod files;
mod stop;
mod template;

use std::{path::Path, sync::Arc};

use super::Tokenizer;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/qwen3");

/// A byte-level BPE of 1,024 tokens.
fn fixture() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_dir(Path::new(FIXTURE)).unwrap())
}

/// A vocabulary as Llama 2's: `▁` for spaces, a token for every byte, words.
pub(crate) fn byte_fallback() -> Arc<Tokenizer> {
    let mut vocab = serde_json::Map::new();
    let pieces = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let pieces = pieces.chain((0..=255u8).map(|b| format!("<0x{b:02X}>")));
    let pieces = pieces.chain(["▁", "▁hello", "▁world", "lo", "wor", "ld", "a", "b", "é", "▁▁"].map(str::to_owned));
    for (id, piece) in pieces.enumerate() {
        vocab.insert(piece, id.into());
    }
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": ([0, 1, 2].map(|id| serde_json::json!({
            "id": id, "content": (["<unk>", "<s>", "</s>"][id]), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }))),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": []},
    });
    Arc::new(Tokenizer::from_bytes(json.to_string().as_bytes(), None, None).unwrap())
}
