//! Turns TCP measurements into health. Pure: time is passed in, nothing is read from a clock or a socket.
//!
//! A [`Measurement`] is one look at one connection, wherever it came from (kernel program, socket diagnostics, a socket of one's own);
//! [`ConnectionScore`] keeps what has to be remembered between looks; [`aggregate`] weighs connections into one factor.

mod measurement;

pub use measurement::Measurement;
