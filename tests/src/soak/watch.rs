//! The engine at rest: what it holds then, and whether that grows.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::{daemon::Daemon, http};

/// How long the engine may take to come to rest after the last client has gone.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// Of the pauses, the first part warms up: buffers and arenas reach the size that the load needs.
const WARM_UP: f64 = 0.3;

/// Memory may be this much more at the end than after warming up: arenas of threads fill at their own time.
pub(super) const MAX_GROWTH_BYTES: i64 = 24 << 20;

/// And over minutes, where noise has averaged out, it may not climb faster than this.
pub(super) const MAX_SLOPE_BYTES_PER_MINUTE: f64 = (512 << 10) as f64;
pub(super) const MINUTES_FOR_SLOPE: f64 = 5.0;

/// Descriptors that may be open more than at the first rest: connections that are just being closed.
const SPARE_DESCRIPTORS: usize = 4;

/// One pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) at: Duration,
    pub(super) resident_bytes: u64,
    pub(super) descriptors: usize,
}

pub(super) struct Watch {
    first_descriptors: usize,
    pub(super) rests: Vec<Rest>,
    pub(super) violations: Vec<String>,
    /// Gauges of the last pause that did not read zero, and counters that tell what the load has touched.
    pub(super) preemptions: f64,
    pub(super) prefix_cache_hits: f64,
}

impl Watch {
    pub(super) fn new(engine: &Daemon) -> anyhow::Result<Self> {
        let first_descriptors = descriptors(engine)?;
        Ok(Self { first_descriptors, rests: Vec::new(), violations: Vec::new(), preemptions: 0.0, prefix_cache_hits: 0.0 })
    }

    /// Waits until the paused engine is at rest, and notes what it holds. One line about it.
    ///
    /// # Errors
    /// When the engine is gone or speaks no more.
    pub(super) fn rest(&mut self, engine: &Daemon, at: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + REST_TIMEOUT;
        loop {
            let metrics = http::get_text(&engine.url, "/metrics").with_context(|| format!("the engine is gone: {}", engine.log()))?;
            let busy = |name: &str| value(&metrics, name).map(|value| (name.to_owned(), value)).filter(|(_, value)| *value != 0.0);
            let gauges = ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"];
            let mut left: Vec<_> = gauges.iter().filter_map(|name| busy(name)).map(|(name, value)| format!("{name} is {value}")).collect();
            let descriptors = descriptors(engine)?;
            // This very request has one.
            if descriptors > self.first_descriptors + SPARE_DESCRIPTORS {
                left.push(format!("{descriptors} descriptors are open, {} at the start", self.first_descriptors));
            }
            let load = http::get_json(&engine.url, "/load")?["server_load"].as_u64().context("no server_load")?;
            if load > 0 {
                left.push(format!("server_load is {load}"));
            }
            ensure!(value(&metrics, gauges[0]).is_some(), "/metrics has no {}", gauges[0]);
            if left.is_empty() || Instant::now() > deadline {
                if !left.is_empty() {
                    self.violations.push(format!("{} s: {REST_TIMEOUT:?} after the last client, {}", at.as_secs(), left.join(", ")));
                }
                let resident_bytes = engine.resident_bytes()?;
                self.preemptions = value(&metrics, "vllm:num_preemptions_total").unwrap_or(0.0);
                self.prefix_cache_hits = value(&metrics, "vllm:prefix_cache_hits_total").unwrap_or(0.0);
                self.rests.push(Rest { at, resident_bytes, descriptors });
                return Ok(format!(
                    "{:>5} s  {:.1} MiB  {descriptors} descriptors",
                    at.as_secs(),
                    resident_bytes as f64 / (1 << 20) as f64
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Growth from the end of the warm-up to the last pause, bytes, and the slope between them, bytes per minute.
    pub(super) fn growth(&self) -> (i64, f64, f64) {
        let warm = &self.rests[((self.rests.len() as f64 * WARM_UP) as usize).min(self.rests.len().saturating_sub(1))..];
        let (Some(first), Some(last)) = (warm.first(), warm.last()) else { return (0, 0.0, 0.0) };
        let points: Vec<_> = warm.iter().map(|rest| (rest.at.as_secs_f64() / 60.0, rest.resident_bytes as f64)).collect();
        (last.resident_bytes as i64 - first.resident_bytes as i64, slope(&points), (last.at - first.at).as_secs_f64() / 60.0)
    }
}

/// Least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mean_x, mean_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

fn descriptors(engine: &Daemon) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).context("the engine is gone")?.count())
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_its_own() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(1.0, 3.0)]), 0.0);
    }

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let text = "# HELP a x\na_b{x=\"1\"} 7\na{x=\"1\"} 3.5\n";
        assert_eq!((value(text, "a"), value(text, "b")), (Some(3.5), None));
    }
}
