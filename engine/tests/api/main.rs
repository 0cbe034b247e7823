//! The HTTP API over a real engine whose executor speaks a prepared text, so that every token is known beforehand.

mod access;
mod chat;
mod completions;
mod constraints;
mod embeddings;
mod errors;
mod links;
mod log;
mod messages;
mod model;
mod openapi;
mod operations;
mod page;
mod parameters;
mod responses;
mod scheduling;
mod script;
mod server;
mod slow_readers;
mod tls;
mod tokens;
mod tools;
