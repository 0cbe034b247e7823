//! Turns TCP measurements into health. Pure: time is passed in, nothing is read from a clock or a socket.
//!
//! A [`Measurement`] is one look at one connection, wherever it came from (kernel program, socket diagnostics, a socket of one's own);
//! [`ConnectionScore`] keeps what has to be remembered between looks; [`aggregate`] weighs connections into one factor.

mod measurement;
mod tcp_info;

mod loss;
mod min_rtt;
mod rate;
mod smoothing;

#[cfg(test)]
mod simulated_link;

mod aggregate;
mod connection;

pub use aggregate::{Activity, aggregate};
pub use connection::{ConnectionScore, QUEUE_TARGET, Terms};
pub use measurement::Measurement;
pub use min_rtt::delay_slack;
pub use tcp_info::{TcpInfo, parse_tcp_info};
