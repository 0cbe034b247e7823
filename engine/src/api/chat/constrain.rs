//! Constraints of a chat's answer: they hold for what comes after the reasoning.

use super::parse::{ParseOptions, REASONING_CLOSE, REASONING_OPEN, ReasoningStart};
use crate::{
    api::{ApiError, generation::NamedConstraint},
    grammar::{Constraint, GrammarError, lark},
    tokenizer::Tokenizer,
};

/// Leaves the model free until its reasoning ends, where reasoning is split off the answer.
///
/// # Errors
/// When the constraint itself is malformed.
pub(super) fn behind_reasoning(
    (param, constraint): NamedConstraint,
    parse: &ParseOptions,
    start: ReasoningStart,
    tokenizer: &Tokenizer,
) -> Result<NamedConstraint, ApiError> {
    if parse.reasoning.is_none() {
        return Ok((param, constraint));
    }
    let wrapped = wrapped(constraint, start, tokenizer);
    Ok((param, wrapped.map_err(|error| ApiError::field(param, format!("`{param}` cannot be followed: {error}.")))?))
}

/// Where the model does not reason, the constraint holds from the beginning.
fn wrapped(constraint: Constraint, start: ReasoningStart, tokenizer: &Tokenizer) -> Result<Constraint, GrammarError> {
    let begin = match start {
        ReasoningStart::Over => return Ok(constraint),
        ReasoningStart::Inside => "reasoning GAP?".to_owned(),
        ReasoningStart::Undecided => format!("({} reasoning GAP?)?", tag(REASONING_OPEN, tokenizer)),
    };
    let reasoning = match tokenizer.special_token(REASONING_CLOSE) {
        Some(id) => format!("reasoning: /(.|\\n)*/ {}", lark::token(id)),
        None => format!("reasoning[lazy]: /(.|\\n)*/ {}", lark::literal(REASONING_CLOSE)),
    };
    let answer = constraint.to_lark()?;
    Ok(Constraint::Grammar(format!("start: {begin} answer\n{reasoning}\nGAP: /\\n{{1,2}}/\nanswer: %lark {{\n{answer}\n}}\n")))
}

/// Special tokens have no text that a grammar could match.
fn tag(text: &str, tokenizer: &Tokenizer) -> String {
    tokenizer.special_token(text).map_or_else(|| lark::literal(text), lark::token)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use serde_json::json;

    use super::*;
    use crate::grammar::GrammarCompiler;

    fn accepts(start: ReasoningStart, text: &str) -> bool {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3");
        let tokenizer = Arc::new(Tokenizer::from_dir(&folder).unwrap());
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
        let constraint = wrapped(Constraint::json_schema(schema), start, &tokenizer).unwrap();
        let mut matcher = GrammarCompiler::new(tokenizer.clone(), 1024, &[1]).compile(&constraint).unwrap().matcher();
        tokenizer.encode(text, false).unwrap().into_iter().all(|id| matcher.mask().unwrap().allows(id) && matcher.commit(id).is_ok())
            && matcher.may_end()
    }

    #[test]
    fn the_answer_is_constrained_and_reasoning_is_not() {
        let undecided = ReasoningStart::Undecided;
        assert!(accepts(undecided, "{\"a\": 1}"));
        assert!(accepts(undecided, "<think>\n{Hm.\n</think>\n\n{\"a\": 1}"));
        assert!(!accepts(undecided, "<think>Hm.</think>Hi"));
        assert!(!accepts(undecided, "<think>Hm."));
        assert!(!accepts(undecided, "Hi"));
        assert!(accepts(ReasoningStart::Inside, "Hm.</think>{\"a\": 1}"));
        assert!(!accepts(ReasoningStart::Inside, "{\"a\": 1}"));
        assert!(accepts(ReasoningStart::Over, "{\"a\": 1}"));
        assert!(!accepts(ReasoningStart::Over, "Hm.</think>{\"a\": 1}"));
    }
}
