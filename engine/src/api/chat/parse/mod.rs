//! From the model's text to what a message holds: reasoning, content and tool calls, each passed on as soon as it is certain.
//!
//! What is found depends on the text alone, not on how it arrives. Text that only looks like a call comes back as content.

mod call_list;
mod call_object;
mod forced;
mod hermes;
mod json;
mod llama3_json;
mod marker;
mod message;
mod mistral;
mod pieces;
mod reasoning;

use clap::ValueEnum;
use pieces::Pieces;

pub(in crate::api) use message::{MessageParser, Piece, ToolCall, WholeMessage};
pub(in crate::api) use reasoning::{CLOSE as REASONING_CLOSE, OPEN as REASONING_OPEN, ReasoningStart};

/// How the served model writes the calls that it decides on itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ToolCallParser {
    /// `<tool_call>{"name": ..., "arguments": ...}</tool_call>`: Hermes, Qwen
    Hermes,
    /// {"name": ..., "parameters": ...}: Llama 3
    #[value(name = "llama3_json")]
    Llama3Json,
    /// `[TOOL_CALLS]`...: Mistral
    Mistral,
}

/// How the served model marks what it thinks before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReasoningParser {
    /// `<think>...</think>`
    Qwen3,
}

/// What is looked for in one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::api) struct ParseOptions {
    /// Reasoning is split off.
    pub(in crate::api) reasoning: Option<ReasoningParser>,
    /// Reasoning that is split off is shown.
    pub(in crate::api) include_reasoning: bool,
    pub(in crate::api) calls: Calls,
    /// Only the first call is kept.
    pub(in crate::api) single_call: bool,
    /// Call ids are nine letters and digits, which Mistral's templates demand; else as OpenAI's.
    pub(in crate::api) short_ids: bool,
}

/// Which calls the answer may hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::api) enum Calls {
    /// All is content.
    #[default]
    None,
    /// Those that the model decides on.
    Auto(ToolCallParser),
    /// The answer is this function's arguments.
    Named(String),
    /// The answer is a list of calls.
    Required,
}

/// Finds calls in text, character by character.
trait ToolParser: Send {
    fn push(&mut self, c: char, out: &mut Pieces);
    /// Nothing follows.
    fn finish(&mut self, out: &mut Pieces);
}

fn tool_parser(calls: &Calls) -> Option<Box<dyn ToolParser>> {
    Some(match calls {
        Calls::None => return None,
        Calls::Auto(ToolCallParser::Hermes) => Box::new(hermes::Hermes::new()),
        Calls::Auto(ToolCallParser::Llama3Json) => Box::new(llama3_json::Llama3Json::new()),
        Calls::Auto(ToolCallParser::Mistral) => Box::new(mistral::Mistral::new()),
        Calls::Named(name) => Box::new(forced::Named::new(name.clone())),
        Calls::Required => Box::new(forced::Required::new()),
    })
}

#[cfg(test)]
mod tests;
