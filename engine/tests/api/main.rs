//! The HTTP API over a real engine whose executor speaks a prepared text, so that every token is known beforehand.

mod chat;
mod completions;
mod constraints;
mod embeddings;
mod errors;
mod log;
mod model;
mod operations;
mod parameters;
mod scheduling;
mod script;
mod server;
mod slow_readers;
mod tokens;
