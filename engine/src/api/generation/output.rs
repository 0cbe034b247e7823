//! From sampled tokens to text: detokenised, cut at stop strings, in as many pieces as the reader is fast.

use std::sync::Arc;

use super::GenerationOptions;
use crate::{
    engine::{EngineError, Generation, LinkState, StepToken},
    health::StreamMeter,
    sampling::SampledToken,
    scheduler::FinishReason,
    tokenizer::{Detokenizer, StopMatcher, Tokenizer},
};

/// What one or more tokens added to the output.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::api) struct Delta {
    pub(in crate::api) text: String,
    /// Number of tokens sampled, a stop token included, as usage counts them.
    pub(in crate::api) num_tokens: usize,
    /// The tokens themselves, kept where log-probabilities were asked for.
    pub(in crate::api) tokens: Vec<SampledToken>,
    /// Set with the last piece.
    pub(in crate::api) finish: Option<FinishReason>,
    /// The link when the latest token was made.
    pub(in crate::api) link: Option<LinkState>,
}

/// Turns tokens into [`Delta`]s. Pure.
struct Assembler {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    keep_tokens: bool,
}

impl Assembler {
    fn new(tokenizer: &Arc<Tokenizer>, options: &GenerationOptions) -> Self {
        Self {
            detokenizer: tokenizer.detokenizer(options.skip_special_tokens),
            stops: StopMatcher::new(&options.stop),
            keep_tokens: options.sampling.logprobs.is_some(),
        }
    }

    fn add(&mut self, step: StepToken, delta: &mut Delta) {
        let is_stop_token = step.finish == Some(FinishReason::Stop);
        let mut text = if is_stop_token { None } else { self.detokenizer.push(step.token.token) }.unwrap_or_default();
        if step.finish.is_some() {
            text.extend(self.detokenizer.finish());
        }
        delta.num_tokens += 1;
        delta.link = Some(step.link);
        if self.keep_tokens {
            delta.tokens.push(step.token);
        }

        let matched = self.stops.push(&text);
        delta.text += &matched.text;
        delta.finish = step.finish;
        if matched.matched.is_some() {
            delta.finish = Some(FinishReason::Stop);
        } else if delta.finish.is_some() {
            delta.text += &self.stops.finish();
        }
    }
}

/// One running generation, read as text. Dropping it cancels the rest.
pub(in crate::api) struct Output {
    /// `None` once the last piece has been handed out.
    generation: Option<Generation>,
    /// An error that came right behind tokens, which go out before it.
    failed: Option<EngineError>,
    assembler: Assembler,
    meter: Option<Arc<StreamMeter>>,
    prompt_tokens: usize,
}

impl Output {
    pub(super) fn new(
        generation: Generation,
        tokenizer: &Arc<Tokenizer>,
        options: &GenerationOptions,
        meter: Option<Arc<StreamMeter>>,
        prompt_tokens: usize,
    ) -> Self {
        Self { generation: Some(generation), failed: None, assembler: Assembler::new(tokenizer, options), meter, prompt_tokens }
    }

    pub(in crate::api) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    pub(super) fn meter(&self) -> Option<Arc<StreamMeter>> {
        self.meter.clone()
    }

    /// All that is there: usually one token, more where the reader was slow. `None` after the piece that carried `finish`.
    ///
    /// # Errors
    /// When the engine failed; nothing follows.
    pub(in crate::api) async fn next(&mut self) -> Option<Result<Delta, EngineError>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let generation = self.generation.as_mut()?;
        let mut delta = Delta::default();
        let mut next = generation.next().await;
        loop {
            match next.unwrap_or_else(|| Err(EngineError::Stopped("it ended the request without a reason".to_owned()))) {
                Ok(step) => self.assembler.add(step, &mut delta),
                Err(error) => {
                    self.generation = None;
                    if delta.num_tokens == 0 {
                        return Some(Err(error));
                    }
                    self.failed = Some(error);
                    return Some(Ok(delta));
                }
            }
            if delta.finish.is_some() {
                self.generation.take().map(Generation::stop);
                return Some(Ok(delta));
            }
            match generation.try_next() {
                Some(waiting) => next = Some(waiting),
                None => return Some(Ok(delta)),
            }
        }
    }

    /// The whole output at once.
    ///
    /// # Errors
    /// When the engine failed before the end.
    pub(in crate::api) async fn collect(mut self) -> Result<Delta, EngineError> {
        let mut whole = Delta::default();
        while let Some(delta) = self.next().await {
            let delta = delta?;
            whole.text += &delta.text;
            whole.num_tokens += delta.num_tokens;
            whole.tokens.extend(delta.tokens);
            whole.finish = delta.finish;
            whole.link = delta.link;
        }
        Ok(whole)
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
