//! From sampled tokens to text: detokenised and cut at stop strings, a piece per token, or fewer where the link is behind.

use std::sync::Arc;

use serde::Serialize;

use super::{Observer, Outcome, Params};
use crate::{
    engine::{EngineError, Generation, LinkState, StepToken},
    health::{MOST_SHARED_BYTES, StreamMeter},
    metrics::EngineMetrics,
    sampling::{SampledToken, ScoredToken},
    scheduler::FinishReason,
    tokenizer::{Detokenizer, StopMatcher, Tokenizer},
};

/// Below this health of its link, a stream's waiting tokens share a chunk: its frame weighs more than the text in it.
const MERGE_BELOW_HEALTH: f64 = 0.8;

/// About what a log-probability weighs on the wire, its token's text included.
const LOGPROB_BYTES: usize = 80;

/// Bounds what one look at the backlog of a late reader holds in memory.
const MAX_PIECES: usize = 64;

/// What one or more tokens added to an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    pub text: String,
    /// Number of tokens sampled, a stop token included, as usage counts them.
    pub num_tokens: usize,
    /// Their ids.
    pub token_ids: Vec<u32>,
    /// The tokens themselves, kept where log-probabilities were asked for.
    pub tokens: Vec<SampledToken>,
    /// Set with the first piece: how many of the prompt's tokens were found in the prefix cache.
    pub cached_tokens: Option<usize>,
    /// Set with the first piece, where [`SamplingParams::prompt_logprobs`](crate::SamplingParams::prompt_logprobs) asked for it: the prompt's
    /// tokens but the first.
    pub prompt_logprobs: Option<Vec<ScoredToken>>,
    /// Set with the last piece.
    pub finish: Option<FinishReason>,
    /// Which of the request's own stops it was, if one.
    pub stop_reason: Option<StopReason>,
    /// The link when the latest token was made.
    pub link: Option<LinkState>,
}

/// What the request named and the output came to.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum StopReason {
    Text(String),
    Token(u32),
}

/// Turns tokens into [`Delta`]s. Pure.
struct Assembler {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    stop: Vec<String>,
    stop_token_ids: Vec<u32>,
    show_stop: bool,
    /// Tokens that still come before stop strings count.
    unstoppable: usize,
    keep_tokens: bool,
    /// Tokens in a piece, once the first has gone out alone.
    interval: usize,
    /// Tokens that the latest piece still takes.
    room: usize,
    begun: bool,
    /// Whether tokens share a piece where the link is behind.
    coalesces: bool,
    /// Up to how many bytes they do, as whoever writes to it says; 0 where it is not behind.
    shared_bytes: usize,
    /// About what the latest piece weighs on the wire, its frame aside.
    latest_bytes: usize,
    /// Whether another token would make the latest piece, which tokens share, longer than that.
    is_full: bool,
    /// Tokens that went into another's piece for that reason.
    coalesced: u64,
}

impl Assembler {
    fn new(tokenizer: &Arc<Tokenizer>, params: &Params) -> Self {
        Self {
            detokenizer: tokenizer.detokenizer(params.skip_special_tokens),
            stops: StopMatcher::new(&params.stop),
            stop: params.stop.clone(),
            stop_token_ids: params.stop_token_ids.clone(),
            show_stop: params.include_stop_in_output,
            unstoppable: params.sampling.min_tokens(),
            keep_tokens: params.sampling.logprobs.is_some(),
            interval: 1,
            room: 0,
            begun: false,
            coalesces: true,
            shared_bytes: 0,
            latest_bytes: 0,
            is_full: false,
            coalesced: 0,
        }
    }

    /// Adds a token to the latest piece where its link is behind, else as a piece of its own.
    fn add(&mut self, step: StepToken, pieces: &mut Vec<Delta>) {
        let is_behind = self.shared_bytes > 0 || step.link.paced || step.link.health < MERGE_BELOW_HEALTH;
        let shares = is_behind && self.coalesces;
        match pieces.last_mut() {
            Some(latest) if self.room > 0 || (shares && !self.is_full) => {
                self.coalesced += u64::from(self.room == 0);
                self.room = self.room.saturating_sub(1);
                self.extend(step, latest);
            }
            _ => {
                self.room = if self.begun { self.interval - 1 } else { 0 };
                self.begun = true;
                self.latest_bytes = 0;
                let mut piece = Delta::default();
                self.extend(step, &mut piece);
                pieces.push(piece);
            }
        }
        let up_to = if self.shared_bytes > 0 { self.shared_bytes } else { MOST_SHARED_BYTES as usize };
        let with_another = pieces.last().map_or(0, |latest| self.latest_bytes + self.latest_bytes / latest.num_tokens);
        self.is_full = shares && self.room == 0 && with_another > up_to;
    }

    fn extend(&mut self, step: StepToken, delta: &mut Delta) {
        let text_before = delta.text.len();
        if self.keep_tokens {
            let prompt = step.prompt_logprobs.as_ref().map_or(0, Vec::len);
            self.latest_bytes += LOGPROB_BYTES * (1 + step.token.top.len() + prompt);
        }
        self.add_text(step, delta);
        self.latest_bytes += delta.text.len() - text_before;
    }

    fn add_text(&mut self, step: StepToken, delta: &mut Delta) {
        let is_stop_token = step.finish == Some(FinishReason::Stop);
        let is_hidden = is_stop_token && !self.show_stop;
        let mut text = if is_hidden { None } else { self.detokenizer.push(step.token.token) }.unwrap_or_default();
        if step.finish.is_some() {
            text.extend(self.detokenizer.finish());
        }
        if is_stop_token && self.stop_token_ids.contains(&step.token.token) {
            delta.stop_reason = Some(StopReason::Token(step.token.token));
        }
        delta.num_tokens += 1;
        delta.link = Some(step.link);
        delta.token_ids.push(step.token.token);
        delta.cached_tokens = delta.cached_tokens.or(step.first.map(|first| first.cached_tokens));
        delta.prompt_logprobs = delta.prompt_logprobs.take().or(step.prompt_logprobs);
        if self.keep_tokens {
            delta.tokens.push(step.token);
        }

        delta.finish = step.finish;
        if self.unstoppable > 0 {
            self.unstoppable -= 1;
            delta.text += &text;
            return;
        }
        let matched = self.stops.push(&text);
        delta.text += &matched.text;
        if let Some(index) = matched.matched {
            delta.finish = Some(FinishReason::Stop);
            delta.stop_reason = Some(StopReason::Text(self.stop[index].clone()));
            if self.show_stop {
                delta.text += &self.stop[index];
            }
        } else if delta.finish.is_some() {
            delta.text += &self.stops.finish();
        }
    }
}

/// One running answer, read as text. Dropping it cancels the rest.
pub struct Output {
    /// `None` once the last piece has been handed out.
    generation: Option<Generation>,
    /// An error that came right behind tokens, which go out before it.
    failed: Option<EngineError>,
    /// A piece that waits for more tokens.
    held: Option<Delta>,
    assembler: Assembler,
    meter: Option<Arc<StreamMeter>>,
    prompt_tokens: usize,
    /// Whether it is the first of the outputs of its prompt, which are counted together.
    leads: bool,
    outcome: Outcome,
    observer: Option<Arc<dyn Observer>>,
    metrics: Arc<EngineMetrics>,
    /// Counts it in the engine's load.
    _generating: Arc<()>,
}

impl Output {
    pub(super) fn new(
        generation: Generation,
        tokenizer: &Arc<Tokenizer>,
        params: &Params,
        prompt_tokens: usize,
        leads: bool,
        metrics: Arc<EngineMetrics>,
        generating: Arc<()>,
    ) -> Self {
        let assembler = Assembler::new(tokenizer, params);
        let meter = generation.meter().cloned();
        let outcome = Outcome { prompt_tokens: if leads { prompt_tokens } else { 0 }, health: 1.0, ..Outcome::default() };
        Self {
            generation: Some(generation),
            failed: None,
            held: None,
            assembler,
            meter,
            prompt_tokens,
            leads,
            outcome,
            observer: None,
            metrics,
            _generating: generating,
        }
    }

    /// Has `observer` told what came of it.
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Hands tokens out this many at a time: the first one at once, and the last as soon as they are there.
    ///
    /// # Panics
    /// When `interval` is 0.
    pub fn in_chunks_of(mut self, interval: usize) -> Self {
        assert!(interval > 0, "a chunk has a token");
        self.assembler.interval = interval;
        self
    }

    /// Whether tokens that wait while the link is behind share a piece; they do unless this says no.
    pub fn coalescing(mut self, on: bool) -> Self {
        self.assembler.coalesces = on;
        self
    }

    pub(crate) fn coalesces(&self) -> bool {
        self.assembler.coalesces
    }

    /// Length of the prompt, tokens.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// How many of them the prefix cache had; 0 before the first token.
    pub fn cached_tokens(&self) -> usize {
        self.outcome.cached_tokens
    }

    /// Whether it is the first of the outputs of its prompt, which is counted once for all.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    pub(crate) fn meter(&self) -> Option<Arc<StreamMeter>> {
        self.meter.clone()
    }

    /// What is there: usually one token's piece, more where the reader was late. `None` after the piece that carried `finish`.
    ///
    /// # Errors
    /// When the engine failed; nothing follows.
    pub async fn next(&mut self) -> Option<Result<Vec<Delta>, EngineError>> {
        let next = self.next_pieces().await;
        self.metrics.coalesced(std::mem::take(&mut self.assembler.coalesced));
        next
    }

    async fn next_pieces(&mut self) -> Option<Result<Vec<Delta>, EngineError>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let generation = self.generation.as_mut()?;
        let mut next = generation.next().await;
        self.assembler.shared_bytes = self.meter.as_ref().map_or(0, |meter| meter.connection().shared_bytes() as usize);
        let mut pieces = Vec::with_capacity(1);
        pieces.extend(self.held.take());
        loop {
            match next.unwrap_or_else(|| Err(EngineError::Stopped("it ended the request without a reason".to_owned()))) {
                Ok(step) => {
                    self.outcome.take(&step);
                    self.assembler.add(step, &mut pieces);
                }
                Err(error) => {
                    self.generation = None;
                    self.outcome.error = Some(error.to_string());
                    if pieces.is_empty() {
                        return Some(Err(error));
                    }
                    self.failed = Some(error);
                    return Some(Ok(pieces));
                }
            }
            if let Some(finish) = pieces.last().and_then(|piece| piece.finish) {
                self.outcome.finish = Some(finish);
                if let Some(generation) = self.generation.take() {
                    generation.stop();
                }
                return Some(Ok(pieces));
            }
            // What follows a full piece waits for its own turn on the link.
            if pieces.len() == MAX_PIECES || self.assembler.is_full {
                return Some(Ok(pieces));
            }
            match generation.try_next() {
                Some(waiting) => next = Some(waiting),
                None if self.assembler.room == 0 => return Some(Ok(pieces)),
                None => {
                    self.held = pieces.pop();
                    if !pieces.is_empty() {
                        return Some(Ok(pieces));
                    }
                    next = generation.next().await;
                    pieces.extend(self.held.take());
                }
            }
        }
    }

    /// The whole output at once.
    ///
    /// # Errors
    /// When the engine failed before the end.
    pub async fn collect(mut self) -> Result<Delta, EngineError> {
        let mut whole = Delta::default();
        while let Some(pieces) = self.next().await {
            for piece in pieces? {
                whole.text += &piece.text;
                whole.num_tokens += piece.num_tokens;
                whole.token_ids.extend(piece.token_ids);
                whole.tokens.extend(piece.tokens);
                whole.cached_tokens = whole.cached_tokens.or(piece.cached_tokens);
                whole.prompt_logprobs = whole.prompt_logprobs.or(piece.prompt_logprobs);
                whole.finish = piece.finish;
                whole.stop_reason = piece.stop_reason;
                whole.link = piece.link;
            }
        }
        Ok(whole)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(observer) = &self.observer {
            observer.ended(&self.outcome);
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
