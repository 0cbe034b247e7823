use std::process::ExitCode;

use clap::Parser;
use tokenflow_client::chat::harmless_text;
use tokenflow_client::cli::{Cli, Command};
use tokenflow_client::{chat, watch};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format_args!("cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Chat(args) => chat::run(*args).await,
            Command::Watch(args) => watch::run(args).await,
        }
    });
    // A line being read from the terminal must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(format_args!("{error:#}")),
    }
}

fn fail(message: std::fmt::Arguments) -> ExitCode {
    // It may hold a server's own words.
    eprintln!("error: {}", harmless_text(&message.to_string()));
    ExitCode::from(1)
}
