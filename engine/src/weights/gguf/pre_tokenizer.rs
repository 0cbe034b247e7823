//! How a text is split into words before byte-level BPE merges within them, by the names that `tokenizer.ggml.pre` has for that.
//!
//! The patterns are those of the models' own `tokenizer.json`.

use serde_json::{Value, json};

use super::Metadata;
use crate::weights::WeightsError;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PreTokenizer {
    split: Split,
    /// Unicode's canonical composition comes first.
    pub(super) composes: bool,
    /// A word that is a token is taken whole.
    pub(super) ignores_merges: bool,
    /// Whether a prompt begins with the beginning-of-sequence token where the file does not say.
    pub(super) adds_bos: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Split {
    Pattern(&'static str),
    /// GPT-2's own.
    Gpt2,
    /// The same, with every digit alone.
    Gpt2Digits,
}

const GPT2: PreTokenizer = PreTokenizer { split: Split::Gpt2, composes: false, ignores_merges: false, adds_bos: false };

/// For SentencePiece, which splits no text.
pub(super) const NONE: PreTokenizer = PreTokenizer { adds_bos: true, ..GPT2 };

const KNOWN: &str = "default, gpt-2, llama-bpe, qwen2, tekken, smollm and starcoder";

pub(super) fn named(metadata: &Metadata<'_>) -> Result<PreTokenizer, WeightsError> {
    const KEY: &str = "tokenizer.ggml.pre";
    let pattern = |pattern| PreTokenizer { split: Split::Pattern(pattern), ..GPT2 };
    Ok(match metadata.str(KEY)? {
        None | Some("default" | "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais") => GPT2,
        Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral") => {
            PreTokenizer { ignores_merges: true, adds_bos: true, ..pattern(LLAMA3) }
        }
        Some("qwen2" | "deepseek-r1-qwen" | "megrez") => PreTokenizer { composes: true, ..pattern(QWEN2) },
        Some("tekken") => PreTokenizer { ignores_merges: true, adds_bos: true, ..pattern(TEKKEN) },
        Some("smollm" | "starcoder" | "refact" | "command-r" | "codeshell") => PreTokenizer { split: Split::Gpt2Digits, ..GPT2 },
        Some(other) => return Err(metadata.error(KEY, format!("is \"{other}\"; known are {KNOWN}"))),
    })
}

impl PreTokenizer {
    pub(super) fn pipeline(&self) -> Value {
        let byte_level =
            |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
        let first = match self.split {
            Split::Gpt2 => return byte_level(true),
            Split::Gpt2Digits => json!({"type": "Digits", "individual_digits": true}),
            Split::Pattern(pattern) => json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
        };
        json!({"type": "Sequence", "pretokenizers": [first, byte_level(self.split == Split::Gpt2Digits)]})
    }
}
