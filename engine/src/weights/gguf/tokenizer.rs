//! The file's tokenizer as the `tokenizer.json` and `tokenizer_config.json` of a Hugging Face folder, so that there is one reader of
//! tokenizers. Byte-level BPE (`gpt2`) and SentencePiece's (`llama`) are known.

use serde_json::{Value, json};

use super::{
    Metadata,
    pre_tokenizer::{self, PreTokenizer},
    sentence_piece,
};
use crate::weights::WeightsError;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MODEL: &str = "tokenizer.ggml.model";

/// What the file says of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Belongs to the protocol rather than the text.
    Control,
    /// Found in a text before anything else is.
    UserDefined,
    Unused,
    Byte,
}

pub(super) struct Vocabulary<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) kinds: Vec<Kind>,
}

/// `tokenizer.json` and `tokenizer_config.json`.
pub(super) fn tokenizer(metadata: &Metadata<'_>) -> Result<(Value, Value), WeightsError> {
    let vocabulary = vocabulary(metadata)?;
    let tokenizer = match metadata.str(MODEL)? {
        Some("gpt2") => byte_level(metadata, &vocabulary)?,
        Some("llama") => sentence_piece::tokenizer(metadata, &vocabulary)?,
        Some(other) => return Err(metadata.error(MODEL, format!("is \"{other}\"; known are gpt2 and llama"))),
        None => return Err(metadata.error(MODEL, "is missing")),
    };
    let text_of = |key: &str| Ok::<_, WeightsError>(special_id(metadata, key, &vocabulary)?.map(|id| vocabulary.tokens[id as usize]));
    let config = json!({
        "bos_token": text_of("bos_token_id")?,
        "eos_token": text_of("eos_token_id")?,
        "chat_template": metadata.str("tokenizer.chat_template")?,
    });
    Ok((tokenizer, config))
}

fn vocabulary<'a>(metadata: &Metadata<'a>) -> Result<Vocabulary<'a>, WeightsError> {
    let tokens = metadata.strings(TOKENS, metadata.required_array(TOKENS)?)?;
    let kinds = match metadata.array(TYPES)? {
        None => vec![Kind::Normal; tokens.len()],
        Some(array) if array.len != tokens.len() => {
            return Err(metadata.error(TYPES, format!("has {} entries for {} tokens", array.len, tokens.len())));
        }
        Some(array) => array
            .values()
            .map(|value| match value.as_i64() {
                Some(2) => Kind::Unknown,
                Some(3) => Kind::Control,
                Some(4) => Kind::UserDefined,
                Some(5) => Kind::Unused,
                Some(6) => Kind::Byte,
                _ => Kind::Normal,
            })
            .collect::<Vec<_>>(),
    };
    if kinds.len() != tokens.len() {
        return Err(metadata.error(TYPES, "is not a list of numbers"));
    }
    Ok(Vocabulary { tokens, kinds })
}

/// A token that the file names by its id.
pub(super) fn special_id(metadata: &Metadata<'_>, key: &str, vocabulary: &Vocabulary<'_>) -> Result<Option<u32>, WeightsError> {
    let key = format!("tokenizer.ggml.{key}");
    match metadata.u32(&key)? {
        Some(id) if id as usize >= vocabulary.tokens.len() => {
            Err(metadata.error(&key, format!("is {id}, but there are {} tokens", vocabulary.tokens.len())))
        }
        id => Ok(id),
    }
}

fn byte_level(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, WeightsError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let pre = pre_tokenizer::named(metadata)?;
    let merges = metadata.strings(MERGES, metadata.required_array(MERGES)?)?;
    let vocab: serde_json::Map<_, _> = vocabulary.tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(vocabulary, |_| false),
        "normalizer": if pre.composes { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre.pipeline(),
        "post_processor": around(metadata, vocabulary, &pre)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": pre.ignores_merges, "vocab": vocab, "merges": merges},
    }))
}

/// Tokens that are found in a text before anything else is; `plain` ones are left to the model.
pub(super) fn added_tokens(vocabulary: &Vocabulary<'_>, plain: impl Fn(&str) -> bool) -> Vec<Value> {
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate();
    let added = tokens.filter(|(_, (token, kind))| {
        matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined) && !token.is_empty() && !plain(token)
    });
    let entry = |(id, (content, kind)): (usize, (&&str, &Kind))| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": *kind != Kind::UserDefined})
    };
    added.map(entry).collect()
}

/// What is put around a prompt.
pub(super) fn around(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>, pre: &PreTokenizer) -> Result<Value, WeightsError> {
    let mut special = serde_json::Map::new();
    let mut piece = |wanted: bool, key: &str| -> Result<Option<Value>, WeightsError> {
        let Some(id) = special_id(metadata, key, vocabulary)?.filter(|_| wanted) else { return Ok(None) };
        let token = vocabulary.tokens[id as usize];
        special.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
        Ok(Some(json!({"SpecialToken": {"id": token, "type_id": 0}})))
    };
    let before = piece(metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(pre.adds_bos), "bos_token_id")?;
    let behind = piece(metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false), "eos_token_id")?;
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let around = |id: &str| before.iter().cloned().chain([text(id)]).chain(behind.clone()).collect::<Vec<_>>();
    let (single, pair) = (around("A"), [around("A"), around("B")].concat());
    if special.is_empty() {
        return Ok(Value::Null);
    }
    Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
}
