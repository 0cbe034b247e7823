//! Constrained decoding: what a request says of its output's form, turned into the tokens that may come next.
//!
//! A [`GrammarCompiler`] knows the model's vocabulary and compiles a [`Constraint`] once; every sequence then follows the
//! [`CompiledGrammar`] with a [`Matcher`] of its own, which gives a mask before each token and takes the token in after it.

mod compiler;
mod constraint;
mod error;
mod gbnf;
pub mod lark;
mod matcher;
mod schema;
mod vocabulary;

pub use compiler::{CompiledGrammar, GrammarCompiler};
pub use constraint::Constraint;
pub use error::{GrammarError, MatchError};
pub use matcher::Matcher;
pub use schema::{JsonStyle, MAX_NESTING};

#[cfg(test)]
mod tests;
