//! `cargo xtask simulate`: scenarios in virtual time, laws side by side.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokenflow_engine::scheduler::PacingLaw;
use tokenflow_tests::{
    experiment::{
        self, Calibration, Measure, Mode, Scenario,
        measure::{Measures, measure},
        scenarios::Build,
    },
    simulator::{Congestion, Options, fleet, run, scenarios, stability},
};

/// Runs scenarios in virtual time with the engine's scheduler and the hint server's score, and prints how the control laws compare
#[derive(Parser)]
#[command(name = "cargo xtask simulate")]
struct Cli {
    /// A scenario of the experiments, or step, ramp, square, noise; `all` of these; or `fleet`
    #[arg(default_value = "all")]
    name: String,
    /// Control laws [default: all]
    #[arg(long, value_delimiter = ',')]
    pacing_law: Vec<String>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 12.0)]
    seconds: f64,
    #[arg(long, default_value = "cubic")]
    congestion_control: CongestionArg,
    /// The same seed gives the same numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What a device can do: the summary.json of an experiment, whose calibration is taken [default: 10 ms a step and 0.1 ms a token]
    #[arg(long)]
    calibration: Option<PathBuf>,
    /// Devices of the fleet
    #[arg(long, default_value_t = 64)]
    devices: usize,
    /// Streams of the fleet
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Where summary.json goes [default: not written]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CongestionArg {
    Cubic,
    Bbr,
}

/// A mode, and a law where it has one.
#[derive(Clone, Copy)]
struct Control {
    mode: Mode,
    law: PacingLaw,
}

impl Control {
    fn name(self) -> &'static str {
        if self.mode == Mode::PerConnection { self.law.name() } else { self.mode.name() }
    }
}

fn main() -> ExitCode {
    match simulate(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(cli: &Cli) -> anyhow::Result<()> {
    ensure!(cli.seconds >= 1.0 && cli.seconds <= 3600.0, "--seconds must be between 1 and 3600");
    ensure!(cli.devices > 0 && cli.streams >= cli.devices, "--streams must be at least --devices, and that at least 1");
    let calibration = cli.calibration.as_deref().map_or_else(|| Ok(usual()), read_calibration)?;
    let laws = match cli.pacing_law.as_slice() {
        [] => PacingLaw::ALL.to_vec(),
        names => names.iter().map(|name| name.parse()).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?,
    };
    let others = [Mode::Off, Mode::Global].map(|mode| Control { mode, law: PacingLaw::default() });
    let paced = laws.into_iter().map(|law| Control { mode: Mode::PerConnection, law });
    let controls: Vec<Control> = others.into_iter().chain(paced).collect();

    let began = Instant::now();
    let rows = if cli.name == "fleet" { fleet_rows(cli, &calibration, &controls) } else { scenario_rows(cli, &calibration, &controls)? };
    print_table(&rows);
    eprintln!("{:.1} s", began.elapsed().as_secs_f64());
    if let Some(folder) = &cli.out {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        let summary = json!({"seed": cli.seed, "calibration": calibration, "runs": rows});
        write(&folder.join("summary.json"), &format!("{summary:#}\n"))?;
    }
    Ok(())
}

struct Row {
    scenario: String,
    control: Control,
    measures: Measures,
    /// Of the group whose links change.
    swing: Option<stability::Swing>,
}

impl Row {
    fn json(&self) -> Value {
        let swing = self.swing.map(|swing| json!({"rate": swing.rate, "queue_s": swing.queue_s}));
        let (mode, law) = (self.control.mode.name(), self.control.law.name());
        json!({"scenario": self.scenario, "mode": mode, "law": law, "measures": self.measures, "swing": swing})
    }
}

fn scenario_rows(cli: &Cli, calibration: &Calibration, controls: &[Control]) -> anyhow::Result<Vec<Row>> {
    let known: Vec<(&str, Build)> = experiment::scenarios::ALL.iter().chain(scenarios::ALL).copied().collect();
    let chosen: Vec<_> = known.iter().filter(|(name, _)| cli.name == "all" || cli.name == *name).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        bail!("{:?} is no scenario; there are {}, all, fleet", cli.name, names.join(", "));
    }
    let window = Duration::from_secs_f64(cli.seconds);
    let mut rows = Vec::new();
    for (name, build) in chosen {
        let scenario = build(calibration, window);
        for &control in controls {
            let options = options(cli, control);
            let record = run(&scenario, calibration, &options);
            let last_change = scenario.events.last().map_or(0.0, |event| event.at.as_secs_f64());
            let (from, to) = (last_change + 2.0, scenario.window.as_secs_f64());
            let changes = scenarios::ALL.iter().any(|(changing, _)| changing == name) && to - from >= 1.0;
            let swing =
                changes.then(|| stability::swing(&record, scenarios::CHANGING_GROUP, from, to, calibration.payload_bytes_per_token));
            let measures = measure(&scenario, calibration, &record);
            rows.push(Row { scenario: (*name).to_owned(), control, measures, swing });
        }
    }
    Ok(rows)
}

fn fleet_rows(cli: &Cli, calibration: &Calibration, controls: &[Control]) -> Vec<Row> {
    let window = Duration::from_secs_f64(cli.seconds);
    let one = |&control: &Control| {
        let began = Instant::now();
        let runs: Vec<(Scenario, Options)> = fleet::mixtures(calibration, window, cli.devices, cli.streams, &options(cli, control));
        let all = fleet::measure_all(&runs, calibration);
        let scenario = format!("{} streams on {} devices, {:.1} s", cli.streams, cli.devices, began.elapsed().as_secs_f64());
        Row { scenario, control, measures: mean(&all), swing: None }
    };
    controls.iter().map(one).collect()
}

/// Of each measure, over all devices that have it.
fn mean(all: &[Measures]) -> Measures {
    let mut sums = std::collections::BTreeMap::<Measure, (f64, f64)>::new();
    for (&measure, value) in all.iter().flatten() {
        let (sum, count) = sums.entry(measure).or_default();
        (*sum, *count) = (*sum + value, *count + 1.0);
    }
    sums.into_iter().map(|(measure, (sum, count))| (measure, sum / count)).collect()
}

fn options(cli: &Cli, control: Control) -> Options {
    let congestion = match cli.congestion_control {
        CongestionArg::Cubic => Congestion::Cubic,
        CongestionArg::Bbr => Congestion::Bbr,
    };
    Options { mode: control.mode, law: control.law, congestion, seed: cli.seed, ..Options::default() }
}

/// Ten milliseconds a step and a tenth of one for each token: a model on one GPU.
fn usual() -> Calibration {
    let throughput = [1, 16, 64, 256].map(|streams| (streams, streams as f64 / (0.01 + 0.0001 * streams as f64)));
    Calibration { throughput: throughput.to_vec(), payload_bytes_per_token: 250.0 }
}

fn read_calibration(path: &Path) -> anyhow::Result<Calibration> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let calibration = json.get("calibration").unwrap_or(&json).clone();
    let calibration: Calibration =
        serde_json::from_value(calibration).with_context(|| format!("{} has no calibration of a device", path.display()))?;
    let usable = |&(streams, rate): &(usize, f64)| streams > 0 && rate > 0.0 && rate.is_finite();
    let is_usable = !calibration.throughput.is_empty()
        && calibration.throughput.iter().all(usable)
        && calibration.throughput.is_sorted_by(|a, b| a.0 < b.0)
        && calibration.payload_bytes_per_token >= 1.0;
    ensure!(is_usable, "{}: the calibration needs rates above 0 for rising numbers of streams", path.display());
    Ok(calibration)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("the output is no file")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let unfinished = path.with_extension("part");
    fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path)).with_context(|| format!("cannot write {}", path.display()))
}

fn print_table(rows: &[Row]) {
    const COLUMNS: [(&str, Measure); 9] = [
        ("of bound", Measure::AchievedOverBound),
        ("tokens/s", Measure::EffectiveTokensPerS),
        ("healthy", Measure::HealthyTokensPerS),
        ("ITL p99", Measure::HealthyItlP99Ms),
        ("TTFT p99", Measure::TtftP99Ms),
        ("queued p99", Measure::QueuedBytesP99),
        ("RTT p99", Measure::BottleneckRttP99Ms),
        ("Jain", Measure::Jain),
        ("overshoot", Measure::Overshoot),
    ];
    let mut last = "";
    for row in rows {
        if row.scenario != last || row.scenario.contains(" s") {
            println!("\n{}", row.scenario);
            print!("  {:<13}", "");
            COLUMNS.iter().for_each(|(title, _)| print!("{title:>11}"));
            println!("{:>11}{:>11}{:>11}", "settles s", "rate ±", "queue ± s");
            last = &row.scenario;
        }
        print!("  {:<13}", row.control.name());
        let cell = |value: Option<f64>| match value {
            None => format!("{:>11}", "-"),
            Some(value) if value.abs() >= 1000.0 => format!("{value:>11.0}"),
            Some(value) => format!("{value:>11.3}"),
        };
        COLUMNS.iter().for_each(|(_, measure)| print!("{}", cell(row.measures.get(measure).copied())));
        let settles = row.measures.get(&Measure::ConvergenceS).copied();
        println!("{}{}{}", cell(settles), cell(row.swing.map(|s| s.rate)), cell(row.swing.map(|s| s.queue_s)));
    }
}
