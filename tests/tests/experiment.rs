//! One short experiment from links to page: what it writes is whole and finite. How fast anything was is not asked here.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokenflow_tests::{
    experiment::{Mode, Options, Variant, experiment, scenarios},
    netns::{self, CongestionControl},
};

/// One test at a time: they share the machine, and one counts namespaces.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn skipped() -> bool {
    match netns::unavailable() {
        Some(reason) => {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {reason}");
            eprintln!("skipped: {reason}");
            true
        }
        None => false,
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every number in a JSON value; serde_json writes what is not finite as null, which is refused too.
fn check_numbers(value: &Value, path: &str) {
    match value {
        Value::Null => panic!("{path} is null"),
        Value::Array(all) => all.iter().enumerate().for_each(|(n, value)| check_numbers(value, &format!("{path}[{n}]"))),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| check_numbers(value, &format!("{path}.{name}"))),
        _ => {}
    }
}

#[test]
fn an_experiment_leaves_a_summary_a_page_plots_and_series() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    let out = tempfile::tempdir().unwrap();
    let (name, build) = scenarios::ALL.iter().find(|(name, _)| *name == "mixed").unwrap();
    let options = Options {
        out: out.path().to_owned(),
        runs: 1,
        window: Duration::from_secs(3),
        congestion_controls: vec![CongestionControl::Cubic],
        variants: Variant::all(&[Mode::Off, Mode::PerConnection], &[]),
        coalesce: false,
        command: "cargo xtask experiment mixed".to_owned(),
    };
    let mut told = Vec::new();
    experiment(*build, &options, &|| false, &mut |done, total, _| told.push((done, total))).unwrap();
    assert_eq!(told.last().map(|(done, total)| done == total), Some(true), "{told:?}");

    let summary: Value = serde_json::from_str(&read(out.path(), "summary.json")).unwrap();
    assert_eq!(summary["scenario"], *name);
    check_numbers(&summary["calibration"], "calibration");
    check_numbers(&summary["congestion_control"], "congestion_control");
    check_numbers(&summary["modes"], "modes");
    assert!(summary["aims"].as_array().is_some_and(|aims| aims.iter().all(|aim| aim["met"].is_boolean() && aim["value"].is_number())));
    for mode in ["off", "per-connection"] {
        let measures = &summary["congestion_control"]["cubic"]["modes"][mode];
        assert_eq!(measures, &summary["modes"][mode]);
        for measure in [
            "achieved_over_bound",
            "effective_tokens_per_s",
            "healthy_tokens_per_s",
            "healthy_itl_p50_ms",
            "healthy_itl_p99_ms",
            "ttft_p99_ms",
            "queued_bytes_p99",
            "held_bytes_p99",
            "bottleneck_rtt_p99_ms",
            "jain",
        ] {
            let value = &measures[measure];
            assert!(value["median"].as_f64().is_some_and(|v| v >= 0.0), "{mode} {measure}: {value}");
            assert_eq!(value["runs"].as_array().map(Vec::len), Some(1), "{mode} {measure}");
        }
        let series = read(out.path(), &format!("series/cubic-{mode}-1.jsonl"));
        let lines: Vec<Value> = series.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["streams"].as_array().map(Vec::len), Some(32));
        assert!(lines.len() == 31 && lines[1..].iter().all(|line| line["tokens"].as_array().is_some_and(|t| t.len() == 32)), "{mode}");
    }
    assert!(summary["modes"].get("global").is_none(), "it was not run");

    let page = read(out.path(), "README.md");
    for plot in ["plots/time-cubic", "plots/modes"] {
        assert!(page.contains(&format!("({plot}.svg)")), "the page shows {plot}");
        assert!(read(out.path(), &format!("{plot}.svg")).contains("per-connection"));
        let png = std::fs::read(out.path().join(format!("{plot}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{plot}.png has {} bytes", png.len());
    }
    assert!(page.contains("## Aims") && page.contains("cargo xtask experiment mixed"));
}

#[test]
fn an_interrupted_experiment_leaves_nothing() {
    if skipped() {
        return;
    }
    let _turn = TURN.lock();
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        out: out.path().join("summary"),
        runs: 1,
        window: Duration::from_secs(60),
        congestion_controls: vec![CongestionControl::Cubic],
        variants: Variant::all(&[Mode::Off], &[]),
        coalesce: false,
        command: String::new(),
    };
    let (_, build) = scenarios::ALL[0];
    let error = experiment(build, &options, &|| true, &mut |_, _, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "interrupted");
    assert!(!options.out.exists());
    let mine = format!("tflow-{}-", std::process::id());
    let left =
        std::fs::read_dir("/run/netns").into_iter().flatten().flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&mine));
    assert_eq!(left.count(), 0);
}
