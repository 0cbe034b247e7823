//! What can go wrong between this client and a server, each in one sentence that names the place.

use std::error::Error;
use std::io;

use crate::chat::counted;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: String, why: String },
    /// The server's own sentence, where it sent one.
    #[error("{url} answered {status}: {message}")]
    Refused { url: String, status: u16, message: String },
    #[error("{url} lists no model; name one with --model")]
    NoModel { url: String },
    #[error("the server reported an error in the middle of the answer: {0}")]
    Reported(String),
    #[error("the connection broke after {}: {why}", counted(*tokens))]
    Broken { tokens: u64, why: String },
    #[error("the stream ended after {} without a finish reason: the answer is incomplete", counted(*tokens))]
    Incomplete { tokens: u64 },
    #[error("{url} sent what is not {expected}: {why}")]
    Malformed { url: String, expected: &'static str, why: String },
}

impl ClientError {
    pub fn unreachable(url: &str, error: &(dyn Error + 'static)) -> Self {
        Self::Unreachable { url: url.to_owned(), why: root_cause(error) }
    }
}

/// The innermost reason, without the layers of HTTP around it.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let innermost = || chain(error).last().map(ToString::to_string);
    io_words(error).or_else(innermost).unwrap_or_default()
}

/// The error's own words, unless the system's reason below them says it better.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    io_words(error).unwrap_or_else(|| error.to_string())
}

fn io_words(error: &(dyn Error + 'static)) -> Option<String> {
    chain(error).find_map(|cause| in_words(cause.downcast_ref::<io::Error>()?.kind())).map(str::to_owned)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn in_words(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("connection refused (is the server running?)"),
        io::ErrorKind::ConnectionReset => Some("connection reset by the server"),
        io::ErrorKind::NotFound => Some("no such socket file"),
        io::ErrorKind::PermissionDenied => Some("permission denied"),
        io::ErrorKind::UnexpectedEof => Some("connection closed by the server"),
        _ => None,
    }
}
