//! `cargo xtask experiment`: congested links, the modes of pacing in turn, and what each of them gains.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokenflow_tests::{
    experiment::{Mode, Options, Variant, experiment, runs, scenarios, write_index},
    netns::{self, CongestionControl},
};

use crate::{
    build, interrupt,
    requirements::{self, BUILD, NETWORK},
};

#[derive(Args)]
pub struct ExperimentArgs {
    /// Which experiment, or `all`
    name: Option<String>,
    /// Folder of the summary, the page, the plots and the time series [default: experiments/NAME in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Runs of each mode; medians are reported
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Seconds for which each run is measured; some experiments need more and take it
    #[arg(long, value_name = "S", default_value_t = 6.0)]
    seconds: f64,
    /// The server's congestion control towards the clients
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "cubic,bbr", value_parser = congestion_control)]
    congestion_control: Vec<CongestionControl>,
    /// Modes of pacing that are compared
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_value = "off,global,per-connection", value_parser = mode)]
    modes: Vec<Mode>,
    /// Laws that per-connection is run with, in comparison; the engine's own where none is named
    #[arg(long, value_name = "LAW", value_delimiter = ',')]
    pacing_law: Vec<String>,
    /// Let tokens share events on links that are behind; no bound is reported then
    #[arg(long)]
    coalesce: bool,
    /// Use the binaries that lie beside this one instead of building
    #[arg(long)]
    no_build: bool,
}

pub fn run(args: &ExperimentArgs) -> anyhow::Result<()> {
    ensure!(args.runs > 0, "--runs must be at least 1");
    ensure!(args.seconds >= 1.0 && args.seconds <= 600.0, "--seconds is {}; it must be from 1 to 600", args.seconds);
    let known = || scenarios::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some(name) = args.name.as_deref() else { bail!("name an experiment: {}, or all", known()) };
    let chosen = scenarios::named(name);
    ensure!(!chosen.is_empty(), "there is no experiment '{name}': {}, or all", known());
    distinct("--congestion-control", &args.congestion_control)?;
    distinct("--modes", &args.modes)?;
    distinct("--pacing-law", &args.pacing_law)?;
    interrupt::watch();
    if !requirements::is_root() {
        bail!("experiments need root: they make network namespaces and load the kernel program");
    }
    requirements::ensure(BUILD)?;
    requirements::ensure(NETWORK)?;
    if let Some(reason) = netns::unavailable() {
        bail!("{reason}");
    }
    netns::remove_stale();
    if !args.no_build {
        build::binaries()?;
    }

    let out = args.out.clone().unwrap_or_else(|| build::target_folder().join("experiments").join(name));
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("[{elapsed_precise}] {pos}/{len} {wide_bar} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut summaries = Vec::new();
    for (index, (scenario, build)) in chosen.iter().enumerate() {
        let options = Options {
            out: if chosen.len() > 1 { out.join(scenario) } else { out.clone() },
            runs: args.runs,
            window: Duration::from_secs_f64(args.seconds),
            congestion_controls: args.congestion_control.clone(),
            variants: Variant::all(&args.modes, &args.pacing_law),
            coalesce: args.coalesce,
            command: command(args, scenario),
        };
        let each = runs(&options);
        bar.set_length((each * chosen.len()) as u64);
        let summary = experiment(*build, &options, &interrupt::requested, &mut |done, _, what| {
            bar.set_position((index * each + done) as u64);
            if !what.is_empty() {
                bar.set_message(what.to_owned());
            }
        });
        let summary = summary.with_context(|| format!("experiment {scenario}"))?;
        bar.suspend(|| {
            println!("{scenario}: {}", options.out.join("README.md").display());
            for aim in &summary.aims {
                let met = if aim.met { "met" } else { "MISSED" };
                let value = aim.value.map_or("not measured".to_owned(), |value| format!("{value:.3}"));
                println!("  {met:>6}  {} ({}): {value}, wanted {:?}", aim.text, aim.congestion_control, aim.wanted);
            }
        });
        summaries.push(summary);
        if chosen.len() > 1 {
            write_index(&out, &summaries)?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// What is run twice would have one name.
fn distinct<T: PartialEq>(flag: &str, values: &[T]) -> anyhow::Result<()> {
    let is_twice = values.iter().enumerate().any(|(index, value)| values[..index].contains(value));
    ensure!(!is_twice, "{flag} names one of its values twice");
    Ok(())
}

/// What repeats one experiment with the same options.
fn command(args: &ExperimentArgs, scenario: &str) -> String {
    let list = |values: Vec<&str>| values.join(",");
    let mut command = format!(
        "cargo xtask experiment {scenario} --runs {} --seconds {} --congestion-control {} --modes {}",
        args.runs,
        args.seconds,
        list(args.congestion_control.iter().map(|cc| cc.name()).collect()),
        list(args.modes.iter().map(|mode| mode.name()).collect())
    );
    if !args.pacing_law.is_empty() {
        command += &format!(" --pacing-law {}", args.pacing_law.join(","));
    }
    if args.coalesce {
        command += " --coalesce";
    }
    command
}

fn congestion_control(text: &str) -> Result<CongestionControl, String> {
    let found = CongestionControl::ALL.into_iter().find(|cc| cc.name() == text);
    found.ok_or_else(|| "must be cubic or bbr".to_owned())
}

fn mode(text: &str) -> Result<Mode, String> {
    let found = Mode::ALL.into_iter().find(|mode| mode.name() == text);
    found.ok_or_else(|| "must be off, global or per-connection".to_owned())
}
