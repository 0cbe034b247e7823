//! `cargo xtask simulate`: scenarios in virtual time. The simulator is a program of its own, since it is built with the engine.

use clap::Args;

use crate::build::{cargo, run as run_command};

#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct SimulateArgs {
    /// The simulator's own: a scenario and flags; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "-p", "tokenflow-tests", "--bin", "tokenflow-simulate", "--"]).args(&args.arguments);
    run_command(&mut command)
}
