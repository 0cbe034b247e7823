use serde_json::{Value, json};

use super::{
    error::GrammarError,
    lark,
    schema::{self, JsonStyle},
};

/// Bounds the time that compiling takes.
const MAX_BYTES: usize = 256 << 10;

/// What the whole output of a sequence must match.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that the schema accepts.
    JsonSchema { schema: Value, style: JsonStyle },
    /// A regular expression, matched from beginning to end (syntax of the Rust crate `regex`, without look-around).
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in llguidance's dialect of Lark, whose first rule is `start`, or in GBNF (`root ::= ...`).
    Grammar(String),
}

impl Constraint {
    /// A schema, written in the way that models like.
    pub fn json_schema(schema: Value) -> Self {
        Self::JsonSchema { schema, style: JsonStyle::default() }
    }

    /// The same in Lark, which is what is compiled.
    ///
    /// # Errors
    /// When it is larger or deeper than what is compiled in bounded time, or empty.
    pub fn to_lark(&self) -> Result<String, GrammarError> {
        let lark = match self {
            Self::JsonObject => format!("start: {}", lark::json(&schema::styled(json!({"type": "object"}), &JsonStyle::default())?)),
            Self::JsonSchema { schema, style } => format!("start: {}", lark::json(&schema::styled(schema.clone(), style)?)),
            Self::Regex(regex) => format!("start: {}", lark::regex(regex)),
            Self::Choice(choices) if choices.is_empty() => return Err(GrammarError::NoChoice),
            Self::Choice(choices) => {
                let literals: Vec<String> = choices.iter().map(|choice| lark::literal(choice)).collect();
                format!("start: {}", literals.join(" | "))
            }
            Self::Grammar(grammar) => lark::from_grammar(grammar)?,
        };
        if lark.len() > MAX_BYTES {
            return Err(GrammarError::TooLarge { size: lark.len(), max: MAX_BYTES });
        }
        Ok(lark)
    }
}
