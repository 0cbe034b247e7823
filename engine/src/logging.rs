//! The programs' log on stderr: text, or lines of JSON. One line for each request when its answer has ended; what goes well in between is
//! not worth a line. `RUST_LOG` says otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::EngineArgs;

/// Target of the lines about requests.
pub const REQUESTS: &str = "tokenflow_engine::requests";

/// Which lines about requests are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLines {
    /// Those that the server failed.
    Troubles,
    /// One for each, when its answer has ended.
    Ends,
    /// Also one when it arrives.
    ArrivalsToo,
}

/// Starts the log of this process; once.
pub fn start(args: &EngineArgs, requests: RequestLines) {
    let level = match requests {
        RequestLines::Troubles => "warn",
        RequestLines::Ends => "info",
        RequestLines::ArrivalsToo => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("info,{REQUESTS}={level}")));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if args.log_json { log.json().init() } else { log.init() }
}
