//! `tokenflow-gpu-check`: what `cargo xtask gpu-check --kit` carries to a machine with a card.

use std::process::ExitCode;

use clap::Parser;
use tokenflow_gpu_check::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
