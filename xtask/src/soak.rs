//! `cargo xtask soak`: random clients against one engine for a while, which must leave it as it was.

use std::{path::PathBuf, time::Duration};

use anyhow::{bail, ensure};
use clap::Args;
use tokenflow_tests::soak::{self, Options};

use crate::{
    build,
    requirements::{self, BUILD},
};

#[derive(Args)]
pub struct SoakArgs {
    /// How long clients come
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// The same seed gives each client the same sequence of requests
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Clients at a time
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Where the summary goes [default: soak.json in cargo's target folder]
    #[arg(long)]
    output: Option<PathBuf>,
}

pub fn run(args: &SoakArgs) -> anyhow::Result<()> {
    ensure!(args.minutes > 0.0 && args.minutes.is_finite(), "--minutes must be a number above 0");
    ensure!(args.clients > 0, "--clients must be at least 1");
    requirements::ensure(BUILD)?;
    build::binaries()?;
    let options = Options { clients: args.clients, ..Options::lasting(Duration::from_secs_f64(args.minutes * 60.0), args.seed) };
    let summary = soak::run(&options, |line| eprintln!("{line}"))?;
    let output = args.output.clone().unwrap_or_else(|| build::target_folder().join("soak.json"));
    summary.write(&output)?;
    println!("{:#}", summary.report);
    eprintln!("summary: {}", output.display());
    match summary.violations.as_slice() {
        [] => Ok(()),
        violations => bail!("the engine did wrong:\n  {}", violations.join("\n  ")),
    }
}
