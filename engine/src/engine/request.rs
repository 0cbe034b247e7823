use std::sync::Arc;

use crate::{
    health::StreamMeter,
    sampling::{SampledToken, SamplingParams},
    scheduler::{FinishReason, SequenceId},
};

/// A validated, tokenised request.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// At least one token.
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    /// Beside the model's own end-of-sequence tokens, which the engine adds unless `ignore_eos`.
    pub stop_token_ids: Vec<u32>,
    pub ignore_eos: bool,
    pub sampling: SamplingParams,
    /// Counts what the client has not received yet; `None` for work that is not streamed, which is never paced.
    pub stream: Option<Arc<StreamMeter>>,
}

/// What the engine knows of the link that carries a stream, at the moment a token was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkState {
    /// 0..=1; 1 where unknown.
    pub health: f64,
    /// Tokens/s handed out over about the last second.
    pub rate: f64,
    /// Whether the stream sat out steps since its last token.
    pub paced: bool,
}

/// One token of a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct StepToken {
    pub token: SampledToken,
    /// Set with the last token; when it is `Stop`, the token itself is a stop token and not part of the text.
    pub finish: Option<FinishReason>,
    pub link: LinkState,
}

/// Fixed facts about a running engine.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// Context length in tokens.
    pub max_model_len: usize,
    pub vocab_size: usize,
    pub block_size: usize,
    pub num_blocks: usize,
    pub max_num_batched_tokens: usize,
    pub max_num_seqs: usize,
    /// The model's end-of-sequence tokens.
    pub eos_token_ids: Vec<u32>,
    /// Largest `logprobs` a request may ask for.
    pub max_logprobs: u32,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// 503 with Retry-After.
    #[error("The server is draining before it stops; try another one")]
    Draining,
    #[error("The engine has stopped: {0}")]
    Stopped(String),
    /// 500: the step that this request was part of failed.
    #[error("The request failed in the engine: {0}")]
    Step(String),
    /// 400.
    #[error("{0}")]
    TooLong(String),
}

/// The tokens of one request as they are made. Dropping it cancels the request, which frees its blocks within one step.
pub struct Generation {
    pub(super) id: SequenceId,
    pub(super) tokens: tokio::sync::mpsc::UnboundedReceiver<Result<StepToken, EngineError>>,
    pub(super) meter: Option<Arc<StreamMeter>>,
    pub(super) cancel: CancelOnDrop,
}

impl Generation {
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// The next token; `None` after the one that carried a finish reason.
    ///
    /// # Errors
    /// When the engine failed; nothing follows.
    pub async fn next(&mut self) -> Option<Result<StepToken, EngineError>> {
        let next = self.tokens.recv().await;
        self.received(&next);
        next
    }

    /// A token that is there already, so that a slow client's backlog goes out in one chunk.
    pub fn try_next(&mut self) -> Option<Result<StepToken, EngineError>> {
        let next = self.tokens.try_recv().ok();
        self.received(&next);
        next
    }

    fn received(&mut self, next: &Option<Result<StepToken, EngineError>>) {
        if let (Some(Ok(token)), Some(meter)) = (next, &self.meter) {
            meter.token_taken();
            if token.finish.is_some() {
                self.cancel.disarm();
            }
        }
    }
}

/// Tells the engine's loop that nobody wants the rest.
pub(super) struct CancelOnDrop {
    pub(super) id: SequenceId,
    pub(super) commands: Option<super::CommandSender>,
}

impl CancelOnDrop {
    fn disarm(&mut self) {
        self.commands = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            commands.cancel(self.id);
        }
    }
}
