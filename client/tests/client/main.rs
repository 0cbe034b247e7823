//! The client's binary from outside: as a script sees it, and as a person at a terminal does.

mod chat;
mod common;
mod terminal;
mod watch;
