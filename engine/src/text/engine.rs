use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{GenerateError, Output, Params, Prompt, StopReason};
use crate::{
    config::{EngineConfig, EngineInfo},
    engine::{EmbedRequest, EngineCore, EngineError, GenerateRequest, Generation, LoadError, LoadedModel, Origin, Served},
    grammar::{CompiledGrammar, Constraint, GrammarCompiler, GrammarError},
    health::StreamMeter,
    metrics::EngineMetrics,
    model::GenerationDefaults,
    sampling::{SampledToken, random},
    scheduler::FinishReason,
    tokenizer::Tokenizer,
};

/// A model that answers: text in, text out, many requests at a time in one batch.
///
/// Cheap to clone; clones share the model. When the last clone and the last [`Output`] are gone, its thread ends and its memory is free.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tokenflow_engine::{Engine, EngineConfig, Params};
///
/// let engine = Engine::load(EngineConfig::demo())?; // or EngineConfig::new("path/to/Qwen3-0.6B")
/// let answer = engine.generate("fn main() {", Params::greedy().max_tokens(8)).await?;
/// assert_eq!(answer.completion_tokens, 8);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    core: EngineCore,
    tokenizer: Arc<Tokenizer>,
    grammars: GrammarCompiler,
    metrics: Arc<EngineMetrics>,
    defaults: GenerationDefaults,
    /// Makes seeds for requests that bring none: a sequence fixed by the engine's seed.
    next_seed: AtomicU64,
    /// A clone per generation, so that they can be counted.
    generating: Arc<()>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub finish_reason: FinishReason,
    /// Which of [`Params::stop`] and [`Params::stop_token_ids`] ended it, if one did.
    pub stop_reason: Option<StopReason>,
    pub prompt_tokens: usize,
    /// Tokens sampled, a stop token included.
    pub completion_tokens: usize,
    /// The tokens themselves with their log-probabilities, where [`SamplingParams::logprobs`](crate::SamplingParams::logprobs) asked for them.
    pub tokens: Vec<SampledToken>,
}

impl Engine {
    /// Reads the model, places its weights and allocates the KV cache; takes as long as reading the weights does.
    ///
    /// Call it on a tokio runtime where the configuration names a hint server ([`EngineConfig::hint_url`]), which it then follows.
    ///
    /// # Errors
    /// One sentence that names the file, the field or the flag.
    pub fn load(config: EngineConfig) -> Result<Self, LoadError> {
        Ok(LoadedModel::load(&config)?.start(&config)?.into())
    }

    /// Answers a prompt. A future that is dropped cancels its request.
    ///
    /// # Errors
    /// When the prompt or its parameters do not fit the model, or the engine failed or stopped.
    pub async fn generate(&self, prompt: impl Into<Prompt>, params: Params) -> Result<Answer, GenerateError> {
        let output = self.stream(prompt, &params)?;
        let prompt_tokens = output.prompt_tokens();
        let whole = output.collect().await?;
        Ok(Answer {
            text: whole.text,
            // The last piece of an output carries the reason.
            finish_reason: whole.finish.unwrap_or(FinishReason::Abort),
            stop_reason: whole.stop_reason,
            prompt_tokens,
            completion_tokens: whole.num_tokens,
            tokens: whole.tokens,
        })
    }

    /// Answers a prompt piece by piece. Dropping the [`Output`] cancels the rest.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tokenflow_engine::{Engine, EngineConfig, Message};
    ///
    /// let engine = Engine::load(EngineConfig::demo())?;
    /// let chat = vec![Message::user("What is ownership?")];
    /// let mut output = engine.stream(chat, &engine.default_params().max_tokens(16))?;
    /// while let Some(pieces) = output.next().await {
    ///     for piece in pieces? {
    ///         print!("{}", piece.text);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the prompt or its parameters do not fit the model, or the engine has stopped.
    pub fn stream(&self, prompt: impl Into<Prompt>, params: &Params) -> Result<Output, GenerateError> {
        let info = self.shared.core.info();
        let prompt = prompt.into().encode(&self.shared.tokenizer, info)?;
        let room = info.max_model_len - prompt.len();
        let max_tokens = params.max_tokens.unwrap_or(room);
        if max_tokens == 0 || max_tokens > room {
            return Err(GenerateError::MaxTokens { asked: max_tokens, room });
        }
        Ok(self.start(prompt, max_tokens, params, None)?)
    }

    /// The vector of a prompt, where the model embeds ([`EngineInfo::embedding_size`]). A future that is dropped cancels its request.
    ///
    /// # Errors
    /// When the prompt does not fit the model, the model generates instead, or the engine failed or stopped.
    pub async fn embed(&self, prompt: impl Into<Prompt>) -> Result<Vec<f32>, GenerateError> {
        let prompt = prompt.into().encode(&self.shared.tokenizer, self.info())?;
        Ok(self.embed_tokens(EmbedRequest { prompt, priority: 0, timeout: None, origin: Origin::default() }).await?)
    }

    /// As [`Engine::embed`], of a prompt that was checked.
    pub(crate) async fn embed_tokens(&self, request: EmbedRequest) -> Result<Vec<f32>, EngineError> {
        let _counted = Arc::clone(&self.shared.generating);
        self.shared.core.embed(request).await
    }

    /// Hands a prompt that was checked to the engine; `meter` counts what a paced stream's client has not received.
    pub(crate) fn start(
        &self,
        prompt: Vec<u32>,
        max_tokens: usize,
        params: &Params,
        meter: Option<Arc<StreamMeter>>,
    ) -> Result<Output, EngineError> {
        let mut outputs = self.start_group(prompt, max_tokens, params, meter, 1)?;
        outputs.pop().ok_or_else(|| EngineError::Stopped("it took no request".to_owned()))
    }

    /// The same for `n` outputs of one prompt, which differ in their seeds alone: the request's own plus the place among them.
    pub(crate) fn start_group(
        &self,
        prompt: Vec<u32>,
        max_tokens: usize,
        params: &Params,
        meter: Option<Arc<StreamMeter>>,
        n: usize,
    ) -> Result<Vec<Output>, EngineError> {
        let prompt_tokens = prompt.len();
        let seed = |i| params.seed.map_or_else(|| self.draw_seed(), |seed| seed.wrapping_add(i));
        let seeds: Vec<u64> = (0..n as u64).map(seed).collect();
        let request = GenerateRequest {
            prompt,
            max_tokens,
            stop_token_ids: params.stop_token_ids.clone(),
            ignore_eos: params.ignore_eos,
            sampling: params.sampling.clone(),
            grammar: params.grammar.clone(),
            stream: meter,
            priority: params.priority,
            cache_salt: params.cache_salt.clone(),
            timeout: params.timeout,
            origin: params.origin.clone(),
        };
        let generations = self.submit_each(request, &seeds)?;
        let Shared { tokenizer, metrics, generating, .. } = &*self.shared;
        let output = |(i, generation)| {
            Output::new(generation, tokenizer, params, prompt_tokens, i == 0, Arc::clone(metrics), Arc::clone(generating))
        };
        Ok(generations.into_iter().enumerate().map(output).collect())
    }

    /// One generation for each seed. They share the prompt's computation unless something is wanted of it that only computing it tells.
    fn submit_each(&self, request: GenerateRequest, seeds: &[u64]) -> Result<Vec<Generation>, EngineError> {
        if !request.sampling.reads_prompt_logits() {
            return self.shared.core.submit_group(request, seeds);
        }
        let alone = seeds.iter().enumerate().map(|(i, seed)| {
            let mut request = request.clone();
            if i > 0 {
                request.stream = request.stream.map(|meter| Arc::new(meter.sibling()));
            }
            self.shared.core.submit_group(request, &[*seed])
        });
        Ok(alone.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Makes a constraint ready for [`Params::grammar`]. May take long, in the worst case about a second: not for a thread that serves others.
    ///
    /// # Errors
    /// When the constraint is malformed or contradictory, or needs more than a bounded amount of work.
    pub fn compile(&self, constraint: &Constraint) -> Result<Arc<CompiledGrammar>, GrammarError> {
        self.shared.grammars.compile(constraint)
    }

    /// As the model's authors recommend (`generation_config.json`), where they do.
    pub fn default_params(&self) -> Params {
        Params::recommended(&self.shared.defaults)
    }

    /// The model's own sampling defaults.
    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.shared.defaults
    }

    /// Sizes and limits.
    pub fn info(&self) -> &EngineInfo {
        self.shared.core.info()
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
    }

    pub fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.shared.metrics
    }

    /// The level below: tokens in, tokens out.
    pub fn core(&self) -> &EngineCore {
        &self.shared.core
    }

    /// Number of generations that wait, run or have not been read to their end.
    pub fn num_generations(&self) -> usize {
        Arc::strong_count(&self.shared.generating) - 1
    }

    /// From now on new requests are refused; those accepted go on.
    pub fn drain(&self) {
        self.shared.core.drain();
    }

    /// Ends every request that is still running with an error that says why.
    pub fn abort_all(&self, reason: &str) {
        self.shared.core.abort_all(reason);
    }

    /// Whether the engine's thread lives.
    pub fn is_alive(&self) -> bool {
        self.shared.core.is_alive()
    }

    /// SplitMix64 over the engine's seed.
    fn draw_seed(&self) -> u64 {
        random::splitmix64(self.shared.next_seed.fetch_add(random::GOLDEN, Relaxed))
    }
}

impl From<Served> for Engine {
    fn from(served: Served) -> Self {
        let Served { core, metrics, tokenizer, generation, seed } = served;
        let next_seed = AtomicU64::new(seed);
        let grammars = GrammarCompiler::new(Arc::clone(&tokenizer), core.info().vocab_size, &core.info().eos_token_ids);
        let generating = Arc::new(());
        Self { shared: Arc::new(Shared { core, tokenizer, grammars, metrics, defaults: generation, next_seed, generating }) }
    }
}
