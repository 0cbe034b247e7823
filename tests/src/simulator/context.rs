//! What steps take longer as contexts grow: attention reads every token that came before.
//!
//! A calibration's steps contain the contexts of its own clients, which start anew after a while; only what a run has beyond these counts.

use std::time::Duration;

use crate::experiment::{Calibration, WARM_UP, answers};

/// Between two looks at a calibration's contexts, seconds.
const LOOK_EVERY: f64 = 0.1;

/// A step's extra time.
#[derive(Clone, Debug)]
pub struct ContextCost {
    seconds_per_token: f64,
    /// Streams, and tokens of context that each of them had in the mean, while these were calibrated.
    calibrated: Vec<(f64, f64)>,
}

impl ContextCost {
    /// `window` is how long each number of streams was calibrated.
    pub fn new(seconds_per_token: f64, calibration: &Calibration, window: Duration, prompt_tokens: usize) -> Self {
        let mean = |&(streams, rate): &(usize, f64)| {
            (streams as f64, prompt_tokens as f64 + mean_output(streams, rate / streams as f64, window.as_secs_f64()))
        };
        Self { seconds_per_token, calibrated: calibration.throughput.iter().map(mean).collect() }
    }

    /// Seconds by which a step is longer (or, below zero, shorter) than the calibration says, for so many streams with so much context.
    pub fn seconds(&self, streams: usize, context_tokens: usize) -> f64 {
        self.seconds_per_token * (context_tokens as f64 - streams as f64 * self.calibrated_context(streams as f64))
    }

    /// As the nearest measured numbers of streams had it.
    fn calibrated_context(&self, streams: f64) -> f64 {
        let above = self.calibrated.partition_point(|(measured, _)| *measured < streams);
        match (above.checked_sub(1).map(|below| self.calibrated[below]), self.calibrated.get(above)) {
            (Some((n0, c0)), Some((n1, c1))) => c0 + (c1 - c0) * (streams - n0) / (n1 - n0),
            (Some((_, context)), None) | (None, Some(&(_, context))) => context,
            (None, None) => 0.0,
        }
    }
}

/// Tokens that healthy clients' running answers have in the mean over a window, at so many tokens per second each.
fn mean_output(streams: usize, rate: f64, window: f64) -> f64 {
    let looks = (window / LOOK_EVERY).ceil().max(1.0) as usize;
    let output = |stream: usize, look: usize| {
        let made = (WARM_UP.as_secs_f64() + (look as f64 + 0.5) * window / looks as f64) * rate;
        let first = answers::first(stream + 1, streams) as f64;
        if made < first { made } else { (made - first) % answers::USUAL as f64 }
    };
    let sum: f64 = (0..streams).flat_map(|stream| (0..looks).map(move |look| (stream, look))).map(|(s, l)| output(s, l)).sum();
    sum / (streams * looks).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        Calibration { throughput: vec![(1, 100.0), (32, 1600.0)], payload_bytes_per_token: 300.0 }
    }

    #[test]
    fn contexts_as_in_the_calibration_cost_nothing_more_and_each_token_beyond_the_same() {
        let cost = ContextCost::new(1e-6, &calibration(), Duration::from_secs(4), 10);
        // Nobody ends within 6 s at 50 tokens/s: 100 to 300 tokens, and the prompt.
        let usual = cost.calibrated_context(32.0);
        assert!((205.0..=215.0).contains(&usual), "{usual}");
        assert!(cost.seconds(32, (32.0 * usual) as usize).abs() < 1e-6);
        assert!((cost.seconds(32, (32.0 * usual) as usize + 1000) - 1e-3).abs() < 1e-6);
        assert!(cost.seconds(32, 0) < 0.0);
    }

    #[test]
    fn clients_that_start_anew_have_less_context() {
        let at = |rate: f64| mean_output(16, rate, 6.0);
        // Of 1400 to 5600 tokens made, none has more than an answer.
        assert!(at(700.0) < answers::USUAL as f64 * 0.6, "{}", at(700.0));
        assert!(at(50.0) < at(80.0));
    }
}
