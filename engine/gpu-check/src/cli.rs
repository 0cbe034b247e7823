//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    open,
    sections::{Run, SectionName, Settings, default_folder, run, run_section},
    step::page_tables,
};

#[derive(Parser)]
#[command(
    name = "tokenflow-gpu-check",
    version,
    about = "Compares what a GPU computes with the CPU, and measures it",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Print what a step of an 8B model costs an H200 at least
    Floors,
    /// Whether kernels can be compiled for the first card: the exit status says so
    #[command(hide = true)]
    Compiler,
    /// One section, told line by line
    #[command(hide = true)]
    Section(SectionArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The card: cuda, cuda:N, rocm or rocm:N
    #[arg(long, default_value = "cuda")]
    device: String,
    /// Where the report goes [default: OUT, or gpu-check-report]
    #[arg(long)]
    out: Option<PathBuf>,
    /// How long the run may take
    #[arg(long, default_value_t = 9.0, value_parser = positive)]
    minutes: f64,
    /// Only these sections, separated by commas
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<SectionName>,
    /// Sizes for an emulated device; numbers then say nothing of speed
    #[arg(long)]
    tiny: bool,
    /// Only checks with this in their names
    #[arg(long)]
    check: Option<String>,
    /// Check the kernels of this folder instead of those inside the binary
    #[arg(long, value_name = "DIR")]
    sources: Option<PathBuf>,
}

#[derive(Args)]
struct SectionArgs {
    #[arg(value_enum)]
    section: SectionName,
    #[arg(long)]
    device: String,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    scratch: PathBuf,
    #[arg(long)]
    tiny: bool,
    #[arg(long)]
    check: Option<String>,
    /// Check the kernels of this folder instead of those inside the binary
    #[arg(long, value_name = "DIR")]
    sources: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number < 1e6 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

impl Cli {
    /// Whether all that was asked for is right.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn execute(self) -> anyhow::Result<bool> {
        match self.command {
            Some(Command::Floors) => {
                print!("{}", page_tables());
                Ok(true)
            }
            Some(Command::Compiler) => Ok(open::gpu("cuda").or_else(|_| open::gpu("rocm"))?.driver().compiler().is_ok()),
            Some(Command::Section(args)) => {
                let SectionArgs { section, device, seconds, scratch, tiny, check, sources } = args;
                Ok(run_section(section, &Settings { device, time: Duration::from_secs_f64(seconds), scratch, tiny, check, sources }))
            }
            None => {
                let RunArgs { device, out, minutes, only, tiny, check, sources } = self.run;
                // In the order of a run, each once; the card is looked for whatever else is asked for.
                let wanted = |section: &SectionName| only.is_empty() || *section == SectionName::Device || only.contains(section);
                run(&Run {
                    device,
                    out: out.unwrap_or_else(default_folder),
                    sections: SectionName::ALL.into_iter().filter(wanted).collect(),
                    time: Duration::from_secs_f64(minutes * 60.0),
                    tiny,
                    check,
                    sources,
                })
            }
        }
    }
}
