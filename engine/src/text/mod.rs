//! Prompts in, text out: the library's [`Engine`], on which the HTTP API stands too.
//!
//! Text handed out is final: never half a character, never the beginning of a stop string, and the same however tokens are grouped.

mod engine;
mod error;
mod outcome;
mod output;
mod params;
mod prompt;

pub use engine::{Answer, Engine};
pub use error::GenerateError;
pub use outcome::{Observer, Outcome};
pub use output::{Delta, Output, StopReason};
pub use params::Params;
pub use prompt::{Message, Prompt};
