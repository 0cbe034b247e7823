//! Pieces of grammars in llguidance's dialect of Lark, for those who put one together.
//!
//! A rule that reads `start: {literal} {json}` wants a fixed text and then JSON of a schema:
//! `format!("start: {} {}", lark::literal("<tool_call>"), lark::json(&schema))`.

use serde_json::Value;

use super::{error::GrammarError, gbnf};

/// A text that must come as it is. Bytes are what counts: tokens may cut it anywhere.
pub fn literal(text: &str) -> String {
    // JSON's escapes are those of Lark.
    Value::String(text.to_owned()).to_string()
}

/// JSON that the schema accepts.
pub fn json(schema: &Value) -> String {
    format!("%json {schema}")
}

/// A text that matches the regular expression from beginning to end.
pub fn regex(regex: &str) -> String {
    let body = unanchored(regex);
    if body.is_empty() { literal("") } else { format!("/{}/", llguidance::regex_to_lark(body, "")) }
}

/// Without the anchors that say what holds anyway.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(body) if body.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 0 => body,
        _ => regex,
    }
}

/// One token of the vocabulary, whatever its text: the way to name special tokens.
pub fn token(id: u32) -> String {
    format!("<[{id}]>")
}

/// A grammar as users write it: GBNF where it has `::=`, else Lark.
pub(super) fn from_grammar(grammar: &str) -> Result<String, GrammarError> {
    if grammar.trim().is_empty() {
        return Err(GrammarError::Invalid("the grammar is empty".to_owned()));
    }
    if gbnf::is_gbnf(grammar) { gbnf::to_lark(grammar) } else { Ok(grammar.to_owned()) }
}
