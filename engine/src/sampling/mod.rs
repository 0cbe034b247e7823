//! Logits to tokens: the parameters a request may set and the choice itself.
//!
//! A choice is a pure function of (logits, [`SamplingParams`], output position), so that preemption, batching and
//! pacing cannot change it.

mod candidates;
mod choose;
mod logprobs;
mod math;
mod params;
mod random;

pub use choose::sample;
pub use params::{SampledToken, SamplingParams};
