use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use tokenflow_hint_server::{
    cli::{Cli, Command},
    server, trace,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    let result = match &cli.command {
        None => server::run(&cli.serve),
        Some(Command::Record(args)) => trace::record(args),
        Some(Command::Replay(args)) => trace::command::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokenflow-hint-server: {error:#}");
            ExitCode::from(1)
        }
    }
}
