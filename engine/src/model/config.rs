//! What `config.json` and `generation_config.json` say, in the form that the models use. Both the fields of transformers 4 and
//! those of transformers 5 are understood; whatever this engine cannot honour is refused rather than ignored.

use std::path::Path;

use super::{
    architecture::Architecture,
    fields::{ConfigError, Fields},
    pooling::PoolingConfig,
    registry,
    rope::RopeConfig,
};
use crate::backend::{Activation, Routing};

/// Above every model there is; vectors with an entry per layer are made before any tensor is looked at.
const MAX_LAYERS: usize = 10_000;

/// A decoder-only transformer's dimensions and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// "Qwen3ForCausalLM".
    pub architecture: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub norm_kind: NormKind,
    pub norm_eps: f32,
    pub activation: Activation,
    /// Longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding table.
    pub tie_word_embeddings: bool,
    /// What embeddings are multiplied by; 1 for most models.
    pub embedding_scale: f32,
    /// Biases of queries, keys and values.
    pub attention_bias: bool,
    pub attention_output_bias: bool,
    pub mlp_bias: bool,
    /// Whether every query and key head is normed.
    pub qk_norm: bool,
    /// What attention's scores are multiplied by; `head_dim^-0.5` for most models.
    pub attention_scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub attention_soft_cap: Option<f32>,
    pub logits_soft_cap: Option<f32>,
    /// Whether attention and MLP work on the same input (GPT-NeoX).
    pub parallel_residual: bool,
    /// Per layer: number of latest positions that a token sees; `None` for all.
    pub sliding_windows: Vec<Option<usize>>,
    pub rope: RopeConfig,
    /// Of layers with a sliding window, where theirs differs (Gemma 3).
    pub local_rope: Option<RopeConfig>,
    /// `None` where every layer is dense.
    pub experts: Option<ExpertsConfig>,
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation: those of `config.json` and of `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    pub generation: GenerationDefaults,
    /// Set where the model embeds text instead of continuing it.
    pub pooling: Option<PoolingConfig>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    Rms,
    /// RMS norm whose scale is `1 + weight`.
    RmsPlusOne,
    /// Layer norm with bias.
    Layer,
}

/// Mixtures of experts in place of MLPs.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    pub num_experts: usize,
    /// Of one expert.
    pub intermediate_size: usize,
    pub routing: Routing,
    /// Per layer: whether it has experts.
    pub layers: Vec<bool>,
}

impl ExpertsConfig {
    /// Experts that a token goes through.
    pub(super) fn top_k(config: &Fields, num_experts: usize) -> Result<usize, ConfigError> {
        let top_k = config.count("num_experts_per_tok")?;
        if top_k > num_experts {
            return Err(config.error("num_experts_per_tok", format!("is {top_k}, more than the {num_experts} experts")));
        }
        Ok(top_k)
    }
}

/// Sampling defaults that the model's authors recommend, where `generation_config.json` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

impl ModelConfig {
    /// Reads `config.json` of a Hugging Face folder, and `generation_config.json` and `modules.json` where there is one.
    ///
    /// # Errors
    /// When a file is not readable, a field is missing or malformed, or the model needs what this engine does not have.
    pub fn open(folder: &Path) -> Result<Self, ConfigError> {
        let generation = folder.join("generation_config.json");
        let generation = if generation.exists() { Some(Fields::open(&generation)?) } else { None };
        let config = Self::read(&Fields::open(&folder.join("config.json"))?, generation.as_ref())?;
        Ok(Self { pooling: PoolingConfig::open(folder)?, ..config })
    }

    /// The same from memory, for the model inside the binary.
    ///
    /// # Errors
    /// As [`ModelConfig::open`].
    pub fn parse(config: &[u8], generation: Option<&[u8]>) -> Result<Self, ConfigError> {
        let generation = generation.map(|json| Fields::parse("generation_config.json", json)).transpose()?;
        Self::read(&Fields::parse("config.json", config)?, generation.as_ref())
    }

    /// The same from what a GGUF file says; `file` is its name, for messages.
    ///
    /// # Errors
    /// As [`ModelConfig::open`].
    pub fn from_gguf(config: &[u8], file: &str) -> Result<Self, ConfigError> {
        Self::read(&Fields::parse(file, config)?, None)
    }

    fn read(config: &Fields, generation: Option<&Fields>) -> Result<Self, ConfigError> {
        let (name, architecture) = architecture(config)?;
        // Models of several kinds of input keep the part that reads text in an object of its own.
        let text = config.inner("text_config")?.unwrap_or_else(|| config.clone());
        let config = &text.normalized(architecture.aliases, architecture.defaults)?;
        let hidden_size = config.count("hidden_size")?;
        let num_heads = config.count("num_attention_heads")?;
        let num_kv_heads = config.optional_count("num_key_value_heads")?.unwrap_or(num_heads);
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(
                config.error("num_key_value_heads", format!("is {num_kv_heads}, which does not divide num_attention_heads, {num_heads}"))
            );
        }
        let head_dim = config.optional_count("head_dim")?.unwrap_or(hidden_size / num_heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(config.error("head_dim", format!("is {head_dim} but must be even")));
        }
        let num_layers = config.count("num_hidden_layers")?;
        if num_layers > MAX_LAYERS {
            return Err(config.error("num_hidden_layers", format!("is {num_layers}, which is not a possible size")));
        }
        let (rope, local_rope) = RopeConfig::read(config, head_dim)?;
        let attention_bias = config.flag("attention_bias")?;
        let mut model = Self {
            architecture: name,
            vocab_size: config.count("vocab_size")?,
            hidden_size,
            intermediate_size: config.count("intermediate_size")?,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim,
            norm_kind: NormKind::Rms,
            norm_eps: config.positive("rms_norm_eps")? as f32,
            activation: activation(config)?,
            max_position_embeddings: config.count("max_position_embeddings")?.max(rope.stretched_positions()),
            tie_word_embeddings: config.flag("tie_word_embeddings")?,
            embedding_scale: 1.0,
            attention_bias,
            attention_output_bias: attention_bias,
            mlp_bias: config.flag("mlp_bias")?,
            qk_norm: false,
            attention_scale: (head_dim as f32).powf(-0.5),
            attention_soft_cap: None,
            logits_soft_cap: None,
            parallel_residual: false,
            sliding_windows: sliding_windows(config, num_layers)?,
            rope,
            local_rope,
            experts: None,
            bos_token_id: config.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids: eos_token_ids(config, generation)?,
            generation: generation.map_or(Ok(GenerationDefaults::default()), GenerationDefaults::read)?,
            pooling: None,
        };
        (architecture.configure)(config, &mut model)?;
        Ok(model)
    }
}

impl GenerationDefaults {
    /// Reads `generation_config.json` in a folder.
    ///
    /// # Errors
    /// When it is missing or malformed; the message names the file.
    pub fn open(folder: &Path) -> Result<Self, ConfigError> {
        Self::read(&Fields::open(&folder.join("generation_config.json"))?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigError> {
        let within = |field: &str, range: &str, is_good: fn(f32) -> bool| match fields.optional::<f32>(field)? {
            Some(value) if !is_good(value) => Err(fields.error(field, format!("is {value} but must be {range}"))),
            value => Ok(value),
        };
        Ok(Self {
            temperature: within("temperature", "at least 0", |t| t >= 0.0 && t.is_finite())?,
            top_p: within("top_p", "above 0 and at most 1", |p| p > 0.0 && p <= 1.0)?,
            top_k: fields.optional("top_k")?,
            min_p: within("min_p", "from 0 to 1", |p| (0.0..=1.0).contains(&p))?,
            repetition_penalty: within("repetition_penalty", "above 0", |p| p > 0.0 && p.is_normal())?,
        })
    }
}

fn architecture(config: &Fields) -> Result<(String, &'static Architecture), ConfigError> {
    let named = config.required::<Vec<String>>("architectures")?;
    let found = named.iter().find_map(|name| Some((name.clone(), registry::find(name)?)));
    let known = || registry::architectures().join(", ");
    found.ok_or_else(|| ConfigError::Architecture { file: config.file().into(), found: named.join(", "), known: known() })
}

/// Gemma calls it `hidden_activation`, beside a `hidden_act` that means nothing.
fn activation(config: &Fields) -> Result<Activation, ConfigError> {
    let field = if config.optional::<String>("hidden_activation")?.is_some() { "hidden_activation" } else { "hidden_act" };
    match config.optional::<String>(field)?.as_deref() {
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some(other) => Err(config.error(field, format!("is \"{other}\"; known are silu, gelu and gelu_pytorch_tanh"))),
    }
}

/// As transformers derives them: `layer_types` says which layers slide; without it those from `max_window_layers` on do.
fn sliding_windows(config: &Fields, num_layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
    let used = config.optional::<bool>("use_sliding_window")?.unwrap_or(true);
    let window = if used { config.optional_count("sliding_window")? } else { None };
    let Some(types) = config.optional::<Vec<String>>("layer_types")? else {
        let first = config.optional::<usize>("max_window_layers")?.unwrap_or(0);
        return Ok((0..num_layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    if types.len() != num_layers {
        return Err(config.error("layer_types", format!("has {} entries for {num_layers} layers", types.len())));
    }
    let window_of = |kind: &String| match (kind.as_str(), window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        ("sliding_attention", None) => Err(config.error("sliding_window", "is missing, but layer_types has sliding_attention")),
        (other, _) => Err(config.error("layer_types", format!("has \"{other}\"; known are full_attention and sliding_attention"))),
    };
    types.iter().map(window_of).collect()
}

fn eos_token_ids(config: &Fields, generation: Option<&Fields>) -> Result<Vec<u32>, ConfigError> {
    let mut ids = config.token_ids("eos_token_id")?;
    if let Some(generation) = generation {
        ids.extend(generation.token_ids("eos_token_id")?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
