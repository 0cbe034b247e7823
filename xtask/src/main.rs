//! `cargo xtask`: the project's own commands. Each installs what it needs when it runs as root, and says what is missing when it does not.

mod build;
mod demo;
mod interrupt;
mod requirements;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "TokenFlow's own commands")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, start the hint server and the engine on the demo model, and stream an answer with live Rate and Health
    Demo(demo::DemoArgs),
    /// Run every test
    Test(test::TestArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if interrupt::requested() => {
            eprintln!("stopped: {error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
