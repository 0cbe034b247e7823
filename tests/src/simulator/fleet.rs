//! Many devices at a time, each with its own scheduler, streams and links, on as many threads as there are cores.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Options, run, scenarios};
use crate::experiment::{
    Calibration, Scenario,
    measure::{Measures, measure},
};

/// Runs each and measures it; in order, whoever is done first.
pub fn measure_all(runs: &[(Scenario, Options)], calibration: &Calibration) -> Vec<Measures> {
    let next = AtomicUsize::new(0);
    let measured = Mutex::new(vec![Measures::new(); runs.len()]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(runs.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, (scenario, options))) = Some(next.fetch_add(1, Relaxed)).and_then(|i| Some((i, runs.get(i)?))) {
                    let measures = measure(scenario, calibration, &run(scenario, calibration, options));
                    measured.lock().unwrap_or_else(PoisonError::into_inner)[index] = measures;
                }
            });
        }
    });
    measured.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A fleet's runs: `streams` in all, shared out to devices, each of which has a mixture of links of its own.
pub fn mixtures(
    calibration: &Calibration,
    window: Duration,
    devices: usize,
    streams: usize,
    options: &Options,
) -> Vec<(Scenario, Options)> {
    let share = |device: usize| streams * (device + 1) / devices - streams * device / devices;
    let one = |device: usize| {
        let seed = options.seed.wrapping_add(device as u64);
        (scenarios::mixture(calibration, window, share(device), seed), Options { seed, ..options.clone() })
    };
    (0..devices).map(one).collect()
}
