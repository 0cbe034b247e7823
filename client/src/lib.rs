//! A terminal client of an OpenAI-compatible server that shows, beside the text, how fast it arrives (Rate) and how well
//! its connection does (Health); and a live table of a host's connections.
//!
//! `cli` parses; `chat` asks, streams and shows an answer; `watch` follows the hint server.

pub mod chat;
pub mod cli;
mod endpoint;
mod error;
mod health;
mod palette;
mod signals;
pub mod watch;

pub use endpoint::Endpoint;
pub use error::ClientError;
pub use health::HintHealth;
pub use signals::{Signal, Signals};
