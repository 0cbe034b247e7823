use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    EmbedRequest, EngineCore, EngineError, GenerateRequest, Generation, LOOP_ENDED,
    gate::Full,
    run::{Command, Live, Progress},
};
use crate::{
    sampling::SamplingParams,
    scheduler::{AddError, NewSequence, SequenceId},
};

impl EngineCore {
    /// Queues a request. Its tokens, or the error that ended it, come out of the [`Generation`].
    ///
    /// # Errors
    /// When it can never run, too many wait already, or the engine drains or has stopped.
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, EngineError> {
        self.check_generates()?;
        let id = self.enter(&request, 1)?;
        self.queue(request, id, None)
    }

    /// The vector of a prompt. It goes through the same queues as everything else; a future that is dropped cancels its request.
    ///
    /// # Errors
    /// When the model does not embed, and as [`EngineCore::submit`].
    pub async fn embed(&self, request: EmbedRequest) -> Result<Vec<f32>, EngineError> {
        if self.info.embedding_size.is_none() {
            return Err(EngineError::not_embedding());
        }
        let request = GenerateRequest::from(request);
        let id = self.enter(&request, 1)?;
        let complete = self.queue(request, id, None)?.next().await.transpose()?;
        complete.and_then(|token| token.embedding).ok_or_else(|| EngineError::Step("the executor made no embedding".to_owned()))
    }

    fn check_generates(&self) -> Result<(), EngineError> {
        if self.info.embedding_size.is_some() { Err(EngineError::not_generating()) } else { Ok(()) }
    }

    /// Queues one request as many times as there are seeds: each generation has its own random numbers, and the prompt is computed once
    /// for all. Where it is streamed, each has a meter of its own on the same connection ([`Generation::meter`]); the first has the
    /// request's.
    ///
    /// # Errors
    /// As [`EngineCore::submit`]: then none is queued.
    pub fn submit_group(&self, request: GenerateRequest, seeds: &[u64]) -> Result<Vec<Generation>, EngineError> {
        self.check_generates()?;
        let first = self.enter(&request, seeds.len())?;
        let group = (seeds.len() > 1).then_some(first);
        let one = |(i, &seed): (usize, &u64)| {
            let mut request = request.clone();
            request.sampling.seed = seed;
            if i > 0 {
                request.stream = request.stream.map(|meter| Arc::new(meter.sibling()));
            }
            self.queue(request, SequenceId(first.0 + i as u64), group)
        };
        seeds.iter().enumerate().map(one).collect()
    }

    /// Refuses what could never be let in at once, however empty the engine is: so many answers to one request.
    ///
    /// # Errors
    /// When there are more than may run and wait.
    pub fn check_count(&self, count: usize) -> Result<(), EngineError> {
        let most = self.shared.most_at_once;
        if count <= most {
            return Ok(());
        }
        Err(EngineError::TooMany(format!("The request asks for {count} answers, but this server runs and queues at most {most} at a time")))
    }

    /// Lets `count` copies of a request in, or none; returns the first one's name.
    fn enter(&self, request: &GenerateRequest, count: usize) -> Result<SequenceId, EngineError> {
        if self.shared.draining.load(Relaxed) {
            return Err(EngineError::Draining);
        }
        let (prompt, max_model_len) = (request.prompt.len(), self.info.max_model_len);
        if prompt == 0 {
            return Err(EngineError::TooLong(AddError::EmptyPrompt.to_string()));
        }
        if prompt > self.info.longest_prompt() {
            return Err(EngineError::TooLong(AddError::ContextLength { prompt, max_model_len }.to_string()));
        }
        self.check_count(count)?;
        let gate = &self.shared.gate;
        if let Err(full) = gate.enter(count, &request.origin.tenant, request.origin.connection) {
            let reason = match full {
                Full::Engine => format!("The engine's queue is full: {} requests are waiting already", gate.waiting()),
                Full::Tenant => "The tenant's queue is full: as many of its requests as may wait are waiting for its share".to_owned(),
                Full::Connection => {
                    "The connection's queue is full: as many of its requests as may wait are waiting for its share".to_owned()
                }
            };
            return Err(EngineError::Overloaded { reason, retry_after: gate.retry_after() });
        }
        Ok(SequenceId(self.shared.next_id.fetch_add(count as u64, Relaxed)))
    }

    fn queue(&self, request: GenerateRequest, id: SequenceId, group: Option<SequenceId>) -> Result<Generation, EngineError> {
        let arrival = self.shared.epoch.elapsed();
        let limits = self.info.limits;
        let timeout = [request.timeout, limits.request_timeout].into_iter().flatten().min();
        let mut stop_token_ids = request.stop_token_ids;
        if !request.ignore_eos || request.grammar.is_some() {
            stop_token_ids.extend(&self.info.eos_token_ids);
        }
        let (sender, tokens) = tokio::sync::mpsc::unbounded_channel();
        let live = Live {
            tokens: sender,
            meter: request.stream.clone(),
            prompt_tokens: request.prompt.len(),
            max_tokens: request.max_tokens,
            arrival,
            progress: Progress::default(),
            matcher: request.grammar.as_ref().map(|grammar| grammar.matcher()),
        };
        let sequence = NewSequence {
            id,
            prompt: request.prompt,
            max_tokens: request.max_tokens,
            stop_token_ids,
            sampling: SamplingParams { constrained: request.grammar.is_some(), ..request.sampling },
            streamed: request.stream.is_some(),
            arrival,
            priority: request.priority,
            cache_salt: request.cache_salt,
            group,
            tenant: request.origin.tenant,
            connection: request.origin.connection,
            deadline: timeout.and_then(|timeout| arrival.checked_add(timeout)),
            start_by: limits.max_queue_time.and_then(|wait| arrival.checked_add(wait)),
        };
        self.commands
            .0
            .send(Command::Submit(Box::new(sequence), Box::new(live)))
            .map_err(|_| EngineError::Stopped(LOOP_ENDED.to_owned()))?;
        Ok(Generation::new(id, tokens, request.stream, self.commands.clone()))
    }
}
