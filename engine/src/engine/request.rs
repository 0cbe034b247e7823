use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::CommandSender;
use crate::{
    grammar::CompiledGrammar,
    health::StreamMeter,
    sampling::{SampledToken, SamplingParams, ScoredToken},
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
    /// What the output must match from beginning to end. The end-of-sequence token then ends it also with `ignore_eos`.
    pub grammar: Option<Arc<CompiledGrammar>>,
    /// Counts what the client has not received yet; `None` for work that is not streamed, which is never paced.
    pub stream: Option<Arc<StreamMeter>>,
    /// Under `--scheduling-policy priority`, the lowest goes first.
    pub priority: i64,
    /// Only requests with the same salt share cached prefixes, so that nobody learns from timing what others asked.
    pub cache_salt: Option<Arc<str>>,
    /// The request ends with an error when it takes longer than this.
    pub timeout: Option<Duration>,
    /// Whose caps bind it.
    pub origin: Origin,
}

/// Where a request came from, for the caps on tenants and on connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Requests that name no tenant are one tenant's.
    pub tenant: Option<Arc<str>>,
    /// The socket's cookie; `None` for work that came by no connection, which those caps leave alone.
    pub connection: Option<u64>,
}

impl GenerateRequest {
    /// A request that is not streamed, ends where the model ends it and has all else at its default.
    pub fn new(prompt: Vec<u32>, max_tokens: usize, sampling: SamplingParams) -> Self {
        Self {
            prompt,
            max_tokens,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            sampling,
            grammar: None,
            stream: None,
            priority: 0,
            cache_salt: None,
            timeout: None,
            origin: Origin::default(),
        }
    }
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
    /// Set with the first token.
    pub first: Option<FirstToken>,
    /// Set where the request was to embed: then this is all that there is, and the token means nothing.
    pub embedding: Option<Vec<f32>>,
    /// Set with the first token, where the parameters ask for it: the prompt's tokens but the first.
    pub prompt_logprobs: Option<Vec<ScoredToken>>,
}

/// What is known of a request once it has its first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstToken {
    /// Arrival to first scheduled.
    pub queued: Duration,
    /// Arrival to this token.
    pub since_arrival: Duration,
    /// Tokens of the prompt that the prefix cache had.
    pub cached_tokens: usize,
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
    /// 400: the model embeds and was to generate, or the other way round.
    #[error("{0}")]
    WrongTask(&'static str),
    /// 400: the request can never run here.
    #[error("{0}")]
    TooLong(String),
    /// 400: it asks for more answers than may ever be here at a time.
    #[error("{0}")]
    TooMany(String),
    /// 503 with Retry-After: too many wait already, or it waited for too long.
    #[error("{reason}; try again in {} s", retry_after.as_secs())]
    Overloaded { reason: String, retry_after: Duration },
    /// 504: its deadline has passed.
    #[error("The request did not end before its deadline; {output_tokens} tokens had been made")]
    TimedOut { output_tokens: usize },
}

impl EngineError {
    pub(crate) fn not_embedding() -> Self {
        Self::WrongTask("This model generates text and makes no embeddings; --runner pooling would make it embed instead")
    }

    pub(super) fn not_generating() -> Self {
        Self::WrongTask("This model embeds text and does not generate any; ask for its vectors at /v1/embeddings")
    }
}

/// A tokenised prompt to embed.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Under `--scheduling-policy priority`, the lowest goes first.
    pub priority: i64,
    /// The request ends with an error when it takes longer than this.
    pub timeout: Option<Duration>,
    /// Whose caps bind it.
    pub origin: Origin,
}

impl From<EmbedRequest> for GenerateRequest {
    /// One that ends as soon as its prompt is computed.
    fn from(request: EmbedRequest) -> Self {
        let EmbedRequest { prompt, priority, timeout, origin } = request;
        Self { ignore_eos: true, priority, timeout, origin, ..Self::new(prompt, 1, SamplingParams::greedy()) }
    }
}

/// The tokens of one request as they are made. Dropping it cancels the request, which frees its blocks within one step.
pub struct Generation {
    id: SequenceId,
    tokens: UnboundedReceiver<Result<StepToken, EngineError>>,
    meter: Option<Arc<StreamMeter>>,
    commands: CommandSender,
    ended: bool,
}

impl Generation {
    pub(super) fn new(
        id: SequenceId,
        tokens: UnboundedReceiver<Result<StepToken, EngineError>>,
        meter: Option<Arc<StreamMeter>>,
        commands: CommandSender,
    ) -> Self {
        Self { id, tokens, meter, commands, ended: false }
    }

    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// What counts its tokens until the client has them, where it is streamed.
    pub fn meter(&self) -> Option<&Arc<StreamMeter>> {
        self.meter.as_ref()
    }

    /// The next token; `None` after the one that carried a finish reason, and after an error.
    ///
    /// # Errors
    /// When the engine failed or stopped before the request was finished; nothing follows.
    pub async fn next(&mut self) -> Option<Result<StepToken, EngineError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Generation::next`], for use inside a stream.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StepToken, EngineError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.tokens.poll_recv(cx).map(|next| {
            let next = next.unwrap_or_else(|| Err(EngineError::Stopped(super::LOOP_ENDED.to_owned())));
            Some(self.taken(next))
        })
    }

    /// A token that is there already, so that a slow client's backlog goes out in one chunk.
    pub fn try_next(&mut self) -> Option<Result<StepToken, EngineError>> {
        if self.ended {
            return None;
        }
        self.tokens.try_recv().ok().map(|next| self.taken(next))
    }

    /// Ends it because its text is complete: a stop string came. Unlike dropping it, this does not count as an abort.
    pub fn stop(mut self) {
        self.end(FinishReason::Stop);
    }

    fn end(&mut self, reason: FinishReason) {
        if !self.ended {
            self.ended = true;
            self.commands.end(self.id, reason);
        }
    }

    fn taken(&mut self, next: Result<StepToken, EngineError>) -> Result<StepToken, EngineError> {
        match &next {
            Ok(token) => {
                self.ended = token.finish.is_some();
                if let Some(meter) = &self.meter {
                    meter.token_taken();
                }
            }
            Err(_) => self.ended = true,
        }
        next
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.end(FinishReason::Abort);
    }
}
