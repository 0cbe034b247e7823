//! SentencePiece's BPE: pieces with scores, from which merges follow, spaces as `▁`, and bytes for what no piece has.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    Metadata, pre_tokenizer,
    tokenizer::{Kind, Vocabulary, added_tokens, around, special_id},
};
use crate::weights::WeightsError;

const SCORES: &str = "tokenizer.ggml.scores";
const SPACE: &str = "▁";
/// Longer pieces than any there are would make the list of merges grow with the square of their length.
const MAX_PIECE_BYTES: usize = 1024;

pub(super) fn tokenizer(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, WeightsError> {
    let scores = scores(metadata, vocabulary)?;
    // Runs of spaces are pieces like others; the converter writes them as plain spaces.
    let is_spaces = |token: &str| !token.is_empty() && token.bytes().all(|b| b == b' ');
    let pieces: Vec<String> = vocabulary
        .tokens
        .iter()
        .zip(&vocabulary.kinds)
        .map(|(token, kind)| if *kind == Kind::UserDefined && is_spaces(token) { token.replace(' ', SPACE) } else { (*token).to_owned() })
        .collect();
    let mut vocab = Map::new();
    for (id, piece) in pieces.iter().enumerate() {
        // Of two equal pieces the first counts.
        vocab.entry(piece.clone()).or_insert(json!(id));
    }
    let mergeable: Vec<bool> = vocabulary
        .tokens
        .iter()
        .zip(&vocabulary.kinds)
        .map(|(t, k)| *k == Kind::Normal || (*k == Kind::UserDefined && is_spaces(t)))
        .collect();
    let has_bytes = vocabulary.kinds.contains(&Kind::Byte);
    let add_space = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = special_id(metadata, "unknown_token_id", vocabulary)?.map(|id| pieces[id as usize].clone());
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if add_space {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(vocabulary, is_spaces),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": around(metadata, vocabulary, &pre_tokenizer::NONE)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": has_bytes, "ignore_merges": false, "vocab": vocab, "merges": merges(&pieces, &mergeable, &scores)},
    }))
}

fn scores(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Vec<f64>, WeightsError> {
    let array = metadata.required_array(SCORES)?;
    let scores: Option<Vec<f64>> = array.values().map(|value| value.as_f64().filter(|score| !score.is_nan())).collect();
    match scores {
        Some(scores) if scores.len() == vocabulary.tokens.len() => Ok(scores),
        _ => Err(metadata.error(SCORES, format!("is not a list of {} numbers", vocabulary.tokens.len()))),
    }
}

/// Every way in which two pieces make a third, the best third first: SentencePiece joins the neighbours whose union scores highest.
fn merges(pieces: &[String], mergeable: &[bool], scores: &[f64]) -> Vec<Value> {
    let ids: HashMap<&str, usize> =
        pieces.iter().enumerate().rev().filter(|(id, _)| mergeable[*id]).map(|(id, p)| (p.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (id, piece) in pieces.iter().enumerate().filter(|(id, piece)| piece.len() <= MAX_PIECE_BYTES && ids.get(piece.as_str()) == Some(id))
    {
        let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let known = splits.filter_map(|(left, right)| Some((id, *ids.get(left)?, *ids.get(right)?)));
        let before = merges.len();
        merges.extend(known);
        merges[before..].sort_by_key(|&(_, left, right)| (left, right));
    }
    // Among equals, as transformers' converter orders them: longer parts first.
    let length = |id: usize| pieces[id].chars().count();
    merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then_with(|| (length(b.1), length(b.2)).cmp(&(length(a.1), length(a.2)))));
    merges.into_iter().map(|(_, left, right)| json!([pieces[left], pieces[right]])).collect()
}
