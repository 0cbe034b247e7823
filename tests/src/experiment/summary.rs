//! `summary.json`: medians with their runs for each congestion control and mode, and whether the aims are met.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Aim, Calibration, Measure, Mode, Scenario, StepCost, Wanted,
    measure::{Measures, median},
};

/// The file. `modes` repeats those of the first congestion control, for readers that know of one.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub scenario: String,
    pub about: String,
    /// RFC 3339, when it was written.
    pub date: String,
    pub machine: Machine,
    /// `git rev-parse HEAD`, with `-dirty` where files differ from it; `None` outside a repository.
    pub commit: Option<String>,
    /// What repeats it.
    pub command: String,
    pub window_s: f64,
    pub calibration: Calibration,
    /// The straight line through the calibration's steps.
    pub step: StepCost,
    /// By congestion control.
    pub congestion_control: BTreeMap<String, Series>,
    pub modes: Modes,
    pub aims: Vec<AimResult>,
}

/// What was measured under one congestion control.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Tokens per second that [`super::bound`] allows; `None` where tokens share events, so that a link carries more of them.
    pub bound_tokens_per_s: Option<f64>,
    pub modes: Modes,
}

/// By mode, then by measure.
pub type Modes = BTreeMap<String, ModeResult>;

#[derive(Clone, Debug, Default, Serialize)]
pub struct ModeResult {
    #[serde(flatten)]
    pub measures: BTreeMap<Measure, Value>,
    /// Cores in use by each process, for each run.
    pub cores: BTreeMap<String, Value>,
}

/// A run's measures, and its processor time by process.
pub type Run = (Measures, Vec<(String, f64)>);

/// A median and the runs that it is of, in order of rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value {
    pub median: f64,
    pub runs: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AimResult {
    pub text: String,
    pub congestion_control: String,
    pub measure: Measure,
    pub mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_to: Option<Mode>,
    /// Median over the rounds; `None` where a round has none, which misses the aim.
    pub value: Option<f64>,
    /// Each round's.
    pub runs: Vec<f64>,
    pub wanted: Wanted,
    pub met: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
}

impl Value {
    /// `None` of nothing.
    pub fn of(runs: Vec<f64>) -> Option<Self> {
        median(&runs).map(|median| Self { median, runs })
    }
}

impl ModeResult {
    /// A measure that one run lacks is left out of that run only.
    pub fn of(runs: &[Run]) -> Self {
        let mut measures: BTreeMap<Measure, Vec<f64>> = BTreeMap::new();
        let mut cores: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (run, processes) in runs {
            run.iter().for_each(|(measure, value)| measures.entry(*measure).or_default().push(*value));
            processes.iter().for_each(|(name, value)| cores.entry(name.clone()).or_default().push(*value));
        }
        Self { measures: values(measures), cores: values(cores) }
    }
}

fn values<K: Ord>(runs: BTreeMap<K, Vec<f64>>) -> BTreeMap<K, Value> {
    runs.into_iter().filter_map(|(key, runs)| Some((key, Value::of(runs)?))).collect()
}

/// The scenario's aims, as far as their modes were run.
pub fn aims(scenario: &Scenario, congestion_control: &str, modes: &Modes) -> Vec<AimResult> {
    let result = |aim: &Aim| {
        let runs = |mode: Mode| {
            let result = modes.get(mode.name())?;
            Some(result.measures.get(&aim.measure).map_or(&[][..], |value| value.runs.as_slice()))
        };
        let own = runs(aim.mode)?;
        let runs: Vec<f64> = match aim.relative_to {
            None => own.to_vec(),
            Some(other) => {
                let other = runs(other)?;
                // A round that one of them lacks leaves no pairs.
                if own.len() == other.len() { own.iter().zip(other).map(|(value, other)| value / other).collect() } else { Vec::new() }
            }
        };
        let value = median(&runs).filter(|value| value.is_finite());
        Some(AimResult {
            text: aim.text.clone(),
            congestion_control: congestion_control.to_owned(),
            measure: aim.measure,
            mode: aim.mode,
            relative_to: aim.relative_to,
            value,
            runs,
            wanted: aim.wanted,
            met: value.is_some_and(|value| aim.wanted.met(value)),
        })
    };
    scenario.aims.iter().filter_map(result).collect()
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
        Self {
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn modes(off: &[f64], paced: &[f64]) -> Modes {
        let result = |values: &[f64]| {
            let runs: Vec<_> =
                values.iter().map(|v| (Measures::from([(Measure::HealthyTokensPerS, *v)]), vec![("engine".to_owned(), 0.9)])).collect();
            ModeResult::of(&runs)
        };
        Modes::from([("off".to_owned(), result(off)), ("per-connection".to_owned(), result(paced))])
    }

    #[test]
    fn a_relative_aim_compares_within_rounds() {
        let mut scenario = Scenario::new("x", "", Duration::from_secs(1));
        scenario.aims = vec![Aim {
            text: "1.6 times as fast".to_owned(),
            measure: Measure::HealthyTokensPerS,
            mode: Mode::PerConnection,
            relative_to: Some(Mode::Off),
            wanted: Wanted::AtLeast(1.6),
        }];
        // The machine became twice as fast after the first round: medians of each would say 2.0 / 1.0.
        let result = aims(&scenario, "cubic", &modes(&[1.0, 2.0, 2.0], &[1.7, 3.4, 3.0]));
        assert_eq!((result[0].value, result[0].met), (Some(1.7), true));
        let nothing = aims(&scenario, "cubic", &modes(&[1.0], &[]));
        assert_eq!((nothing[0].value, nothing[0].met), (None, false), "what could not be measured is missed");
        assert!(aims(&scenario, "cubic", &Modes::new()).is_empty(), "modes that were not run have no aims");
    }

    #[test]
    fn the_file_has_each_measure_by_its_name_under_its_mode() {
        let file = serde_json::to_value(modes(&[1.0, 3.0], &[2.0])).unwrap();
        assert_eq!(file["off"]["healthy_tokens_per_s"], serde_json::json!({"median": 2.0, "runs": [1.0, 3.0]}));
        assert_eq!(file["off"]["cores"]["engine"]["median"], 0.9);
    }
}
