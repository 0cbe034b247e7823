//! What a simulated run is told beside its scenario.

use std::time::Duration;

use tokenflow_engine::scheduler::{Pacing, PacingLaw};

use crate::experiment::{Mode, WARM_UP};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    Cubic,
    Bbr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub mode: Mode,
    /// Under [`Mode::PerConnection`].
    pub law: PacingLaw,
    pub congestion: Congestion,
    /// The same seed gives the same run.
    pub seed: u64,
    /// Before the measured window begins.
    pub warm_up: Duration,
    /// How often the hint server looks, and how long until the engine knows.
    pub hint_interval: Duration,
    pub hint_delay: Duration,
    /// What the engine believes of delivery rates, as a multiple of what they are: a law's gain, to see one that is too high.
    pub rate_gain: f64,
    /// By how much a step's time varies by chance, as a fraction to both sides.
    pub step_noise: f64,
    /// By how many seconds each token of context beyond the calibration's makes a step longer.
    pub context_seconds: f64,
    pub prompt_tokens: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::PerConnection,
            law: PacingLaw::default(),
            congestion: Congestion::Cubic,
            seed: 0,
            warm_up: WARM_UP,
            hint_interval: Duration::from_millis(50),
            hint_delay: Duration::from_millis(10),
            rate_gain: 1.0,
            step_noise: 0.02,
            context_seconds: 0.0,
            prompt_tokens: 16,
        }
    }
}

impl Options {
    pub(super) fn pacing(&self) -> Pacing {
        match self.mode {
            Mode::Off => Pacing::Off,
            Mode::Global => Pacing::Global,
            Mode::PerConnection => Pacing::PerConnection,
        }
    }
}
