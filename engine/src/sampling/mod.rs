//! Logits to tokens: the parameters a request may set and the choice itself.
//!
//! A choice is a pure function of the logits and the [`SampleRequest`](crate::scheduler::SampleRequest): parameters, output position and,
//! where the parameters look back or a grammar rules, the tokens so far and a mask. Preemption, batching and pacing cannot change it.

mod adjust;
mod candidates;
mod choose;
mod logprobs;
mod mask;
mod math;
mod params;
pub(crate) mod random;

pub use choose::sample;
pub use logprobs::score;
pub use mask::TokenMask;
pub use params::{LogitAdjustments, SampledToken, SamplingParams, ScoredToken};
