//! Logits to tokens: the parameters a request may set and the choice itself.
//!
//! A choice is a pure function of (logits, [`SamplingParams`], output position), so that preemption, batching and
//! pacing cannot change it.

mod params;

pub use params::{SampledToken, SamplingParams};
