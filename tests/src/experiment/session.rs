//! One experiment from calibration to page: every mode in turn, round after round, under each congestion control.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Calibration, GroupSpec, Measure, Mode, Scenario, Variant,
    bound::bound_tokens_per_s,
    files::write,
    measure::measure,
    model,
    page::{self, ROWS},
    plot::{self, Bars, Column, Panel},
    run::{Setup, run},
    scenarios::Build,
    series,
    summary::{Machine, ModeResult, Modes, Run, Series, Summary, aims},
    testbed::Testbed,
    variant::{names, order},
};
use crate::netns::{CongestionControl, LinkShape};

/// What to run and where the files go.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of `summary.json`, `README.md`, `plots/` and `series/`.
    pub out: PathBuf,
    pub runs: usize,
    /// The measured window of a run.
    pub window: Duration,
    pub congestion_controls: Vec<CongestionControl>,
    pub variants: Vec<Variant>,
    /// Lets tokens share events on links that are behind. There is no bound then: bytes of a token depend on the queue.
    pub coalesce: bool,
    /// What repeats it, for the page.
    pub command: String,
}

/// Where it stands: runs done, runs in all, what runs now.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// Streams at a time for which the engine's speed is measured, for as long as a run's window: steps take longer as contexts grow.
const CALIBRATION_STREAMS: [usize; 4] = [1, 8, 16, 32];

/// Runs of one experiment, calibration included.
pub fn runs(options: &Options) -> usize {
    CALIBRATION_STREAMS.len() + options.congestion_controls.len() * options.runs * options.variants.len()
}

/// Runs it and writes its files.
///
/// # Errors
/// When the testbed, a server or a stream fails, a file cannot be written, or `cancelled` says so.
pub fn experiment(build: Build, options: &Options, cancelled: &(dyn Fn() -> bool + Sync), progress: Progress) -> anyhow::Result<Summary> {
    let total = runs(options);
    let folder = tempfile::tempdir()?;
    model::make(folder.path())?;
    let flags = if options.coalesce { Vec::new() } else { vec!["--no-coalesce-events".to_owned()] };
    let mut done = 0;
    let mut tell = |what: &str, finished: usize| {
        done += finished;
        progress(done, total, what);
    };
    let setup = Setup { model: folder.path(), engine_flags: &flags, cancelled };
    let calibration = calibrate(options.window, &setup, &mut tell)?;
    let scenario = build(&calibration, options.window);
    let names = names(&options.variants);

    let mut congestion_control = BTreeMap::new();
    let mut results = Vec::new();
    for cc in &options.congestion_controls {
        tell(&format!("{} {}: links", scenario.name, cc.name()), 0);
        let testbed = Testbed::new(&scenario, *cc)?;
        let mut measured: Vec<Vec<Run>> = vec![Vec::new(); options.variants.len()];
        let mut columns: Vec<Option<Column>> = vec![None; options.variants.len()];
        for round in 0..options.runs {
            for index in order(options.variants.len(), round) {
                let name = &names[index];
                tell(&format!("{} {} {name}, run {} of {}", scenario.name, cc.name(), round + 1, options.runs), 0);
                let record = run(&scenario, &testbed, &options.variants[index], &setup)?;
                let file = options.out.join("series").join(format!("{}-{name}-{}.jsonl", cc.name(), round + 1));
                write(&file, series::json_lines(&scenario, &record))?;
                let mut measures = measure(&scenario, &calibration, &record);
                if options.coalesce {
                    measures.remove(&Measure::AchievedOverBound);
                }
                columns[index].get_or_insert_with(|| Column { title: name.clone(), curves: series::curves(&scenario, &record) });
                measured[index].push((measures, record.cores));
                tell("", 1);
            }
        }
        let modes: Modes = names.iter().cloned().zip(measured.iter().map(|runs| ModeResult::of(runs))).collect();
        results.extend(aims(&scenario, cc.name(), &modes));
        let bound_tokens_per_s = (!options.coalesce).then(|| bound_tokens_per_s(&scenario, &calibration));
        congestion_control.insert(cc.name().to_owned(), Series { bound_tokens_per_s, modes });
        draw(&options.out.join("plots").join(format!("time-{}", cc.name())), &time_plot(&scenario, cc.name(), columns))?;
    }
    let first = options.congestion_controls.first().and_then(|cc| congestion_control.get(cc.name()));
    let summary = Summary {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        machine: Machine::here(),
        commit: commit(),
        command: options.command.clone(),
        window_s: scenario.window.as_secs_f64(),
        step: calibration.step_cost(),
        calibration,
        modes: first.map(|series: &Series| series.modes.clone()).unwrap_or_default(),
        congestion_control,
        aims: results,
    };
    draw(&options.out.join("plots/modes"), &bars_plot(&summary, &names))?;
    write(&options.out.join("README.md"), page::page(&summary, &names))?;
    write(&options.out.join("summary.json"), serde_json::to_string_pretty(&summary)? + "\n")?;
    Ok(summary)
}

/// Writes `index` for several experiments' summaries.
///
/// # Errors
/// When the file cannot be written.
pub fn write_index(out: &Path, summaries: &[Summary]) -> anyhow::Result<()> {
    write(&out.join("README.md"), page::index(summaries))
}

/// How fast so many streams on free links are together, without pacing, and how many bytes a token's chunk has.
fn calibrate(window: Duration, setup: &Setup, tell: &mut impl FnMut(&str, usize)) -> anyhow::Result<Calibration> {
    let off = Variant { mode: Mode::Off, law: None };
    let mut calibration = Calibration { throughput: Vec::new(), payload_bytes_per_token: 1.0 };
    for streams in CALIBRATION_STREAMS {
        tell(&format!("calibration, {streams} streams"), 0);
        let mut scenario = Scenario::new("calibration", "", window);
        let links = streams.min(4);
        scenario.groups = vec![GroupSpec::new("clients", links, streams / links, LinkShape::free()).healthy()];
        let record = run(&scenario, &Testbed::new(&scenario, CongestionControl::Cubic)?, &off, setup)?;
        let chunks = || record.seats.iter().flat_map(|seat| seat.chunks());
        let (bytes, tokens) = chunks().fold((0, 0), |(bytes, tokens), c| (bytes + u64::from(c.bytes), tokens + u64::from(c.tokens)));
        calibration.payload_bytes_per_token = bytes as f64 / tokens.max(1) as f64;
        let rate = (0..record.seats.len()).map(|seat| record.tokens(seat, 0.0, scenario.window.as_secs_f64())).sum::<u64>() as f64
            / scenario.window.as_secs_f64();
        anyhow::ensure!(rate > 0.0, "{streams} streams on free links got no token in {:?}", scenario.window);
        calibration.throughput.push((streams, rate));
        tell("", 1);
    }
    Ok(calibration)
}

fn time_plot(scenario: &Scenario, cc: &str, columns: Vec<Option<Column>>) -> String {
    let columns: Vec<_> = columns.into_iter().flatten().collect();
    let events: Vec<f64> = scenario.events.iter().map(|event| event.at.as_secs_f64()).collect();
    let title = format!("{}, {cc}: a stream's rate and health, mean of each group, first run", scenario.name);
    plot::time(&title, &columns, &events, scenario.window.as_secs_f64())
}

fn bars_plot(summary: &Summary, names: &[String]) -> String {
    let panel = |(measure, title): &(Measure, &str)| {
        let cluster = |series: &Series| -> Vec<_> {
            let value = |name: &String| series.modes.get(name)?.measures.get(measure).map(|value| (value.median, value.runs.clone()));
            names.iter().map(value).collect()
        };
        let clusters: Vec<Vec<_>> = summary.congestion_control.values().map(cluster).collect();
        clusters.iter().flatten().any(Option::is_some).then(|| Panel { title: (*title).to_owned(), clusters })
    };
    plot::bars(&Bars {
        title: format!("{}: medians and runs", summary.scenario),
        modes: names.to_vec(),
        clusters: summary.congestion_control.keys().cloned().collect(),
        panels: ROWS.iter().filter_map(panel).collect(),
    })
}

/// As SVG and as PNG.
fn draw(path: &Path, svg: &str) -> anyhow::Result<()> {
    write(&path.with_extension("svg"), svg)?;
    write(&path.with_extension("png"), plot::png(svg)?)
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(git(&["rev-parse", "HEAD"])? + if dirty.is_empty() { "" } else { "-dirty" })
}
