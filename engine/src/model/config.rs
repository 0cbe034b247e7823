//! What `config.json` and `generation_config.json` say, in the form that the models use. Both the fields of transformers 4 and
//! those of transformers 5 are understood; whatever this engine cannot honour is refused rather than ignored.

use std::path::Path;

use super::{
    architecture::Architecture,
    fields::{ConfigError, Fields},
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
}

impl ModelConfig {
    /// Reads `config.json` of a Hugging Face folder, and `generation_config.json` where there is one.
    ///
    /// # Errors
    /// When a file is not readable, a field is missing or malformed, or the model needs what this engine does not have.
    pub fn open(folder: &Path) -> Result<Self, ConfigError> {
        let generation = folder.join("generation_config.json");
        let generation = if generation.exists() { Some(Fields::open(&generation)?) } else { None };
        Self::read(&Fields::open(&folder.join("config.json"))?, generation.as_ref())
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
        if let Some(penalty) = fields.optional::<f32>("repetition_penalty")?.filter(|&penalty| penalty != 1.0) {
            tracing::warn!(file = fields.file(), repetition_penalty = penalty, "repetition_penalty is not supported and has no effect");
        }
        Ok(Self {
            temperature: within("temperature", "at least 0", |t| t >= 0.0 && t.is_finite())?,
            top_p: within("top_p", "above 0 and at most 1", |p| p > 0.0 && p <= 1.0)?,
            top_k: fields.optional("top_k")?,
            min_p: within("min_p", "from 0 to 1", |p| (0.0..=1.0).contains(&p))?,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn fixture(file: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(file)).unwrap()
    }

    fn changed(field: &str, value: Value) -> Result<ModelConfig, String> {
        let mut config: Value = serde_json::from_slice(&fixture("qwen3/config.json")).unwrap();
        if value == json!("absent") {
            config.as_object_mut().unwrap().remove(field);
        } else {
            config[field] = value;
        }
        ModelConfig::parse(config.to_string().as_bytes(), None).map_err(|e| e.to_string())
    }

    #[test]
    fn old_and_new_form_are_equal() {
        let new = ModelConfig::parse(&fixture("qwen3/config.json"), None).unwrap();
        assert_eq!(new, ModelConfig::parse(&fixture("qwen3/config.old.json"), None).unwrap());
        assert_eq!(new.rope.theta, 1e6);
        assert_eq!((new.head_dim, new.num_kv_heads, new.tie_word_embeddings), (32, 2, true));
    }

    #[test]
    fn end_tokens_come_from_both_files() {
        let config = fixture("qwen3/config.json");
        let parse = |generation: &str| ModelConfig::parse(&config, Some(generation.as_bytes())).unwrap();
        assert_eq!(parse("{}").eos_token_ids, [1]);
        assert_eq!(parse(r#"{"eos_token_id": 7}"#).eos_token_ids, [1, 7]);
        assert_eq!(parse(r#"{"eos_token_id": [9, 1, 7], "temperature": 0.6, "top_k": 20}"#).eos_token_ids, [1, 7, 9]);
        assert_eq!(parse(r#"{"temperature": 0.6}"#).generation.temperature, Some(0.6));
        assert_eq!(changed("eos_token_id", Value::Null).unwrap().eos_token_ids, [] as [u32; 0]);
    }

    #[test]
    fn defaults_out_of_range_name_file_and_field() {
        let config = fixture("qwen3/config.json");
        let refusal = |field: &str, value: f64| {
            let generation = json!({"temperature": 0.6, field: value}).to_string();
            ModelConfig::parse(&config, Some(generation.as_bytes())).unwrap_err().to_string()
        };
        assert_eq!(refusal("top_p", 0.0), "generation_config.json: field \"top_p\" is 0 but must be above 0 and at most 1");
        assert_eq!(refusal("temperature", -0.5), "generation_config.json: field \"temperature\" is -0.5 but must be at least 0");
        assert_eq!(refusal("temperature", 1e300), "generation_config.json: field \"temperature\" is inf but must be at least 0");
        assert_eq!(refusal("min_p", 1.5), "generation_config.json: field \"min_p\" is 1.5 but must be from 0 to 1");
        let edges = br#"{"temperature": 0, "top_p": 1, "min_p": 1, "repetition_penalty": 1.1}"#;
        assert_eq!(ModelConfig::parse(&config, Some(edges)).unwrap().generation.min_p, Some(1.0));
    }

    #[test]
    fn refusals_are_one_sentence_that_names_the_field() {
        let error = |field: &str, value: Value| changed(field, value).unwrap_err();
        for field in [
            "hidden_size",
            "vocab_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "rms_norm_eps",
            "max_position_embeddings",
        ] {
            assert_eq!(error(field, json!("absent")), format!("config.json: field \"{field}\" is missing"));
        }
        assert_eq!(
            error("architectures", json!(["MambaForCausalLM"])),
            "config.json: architecture \"MambaForCausalLM\" is not supported; known are Gemma2ForCausalLM, Gemma3ForCausalLM, \
             Gemma3ForConditionalGeneration, GPTNeoXForCausalLM, LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM, \
             Qwen3ForCausalLM, Qwen3MoeForCausalLM"
        );
        assert_eq!(error("hidden_size", json!(0)), "config.json: field \"hidden_size\" is 0, which is not a possible size");
        assert!(error("hidden_size", json!("64")).starts_with("config.json: field \"hidden_size\" is malformed: invalid type: string"));
        assert!(error("hidden_size", json!(1u64 << 60)).contains("not a possible size"));
        assert_eq!(
            error("num_key_value_heads", json!(3)),
            "config.json: field \"num_key_value_heads\" is 3, which does not divide num_attention_heads, 4"
        );
        assert_eq!(error("head_dim", json!(15)), "config.json: field \"head_dim\" is 15 but must be even");
        assert_eq!(
            error("hidden_act", json!("relu")),
            "config.json: field \"hidden_act\" is \"relu\"; known are silu, gelu and gelu_pytorch_tanh"
        );
        assert_eq!(error("layer_types", json!(["full_attention"])), "config.json: field \"layer_types\" has 1 entries for 3 layers");
        assert!(ModelConfig::parse(b"{", None).unwrap_err().to_string().starts_with("config.json is not a JSON object: EOF"));
        let missing = ModelConfig::open(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(missing.starts_with("/nonexistent/config.json cannot be read: No such file"), "{missing}");
    }

    #[test]
    fn windows_follow_layer_types() {
        let mut config: Value = serde_json::from_slice(&fixture("qwen3/config.json")).unwrap();
        config["use_sliding_window"] = json!(true);
        config["sliding_window"] = json!(8);
        config["layer_types"] = json!(["full_attention", "sliding_attention", "full_attention"]);
        let parse = |config: &Value| ModelConfig::parse(config.to_string().as_bytes(), None).unwrap().sliding_windows;
        assert_eq!(parse(&config), [None, Some(8), None]);
        config["layer_types"] = Value::Null;
        config["max_window_layers"] = json!(2);
        assert_eq!(parse(&config), [None, None, Some(8)]);
    }

    proptest! {
        #[test]
        fn no_config_makes_it_panic(at in 0usize..40, pick in 0usize..9, number: i64, float: f64, garbage in prop::collection::vec(any::<u8>(), 0..60)) {
            let config: Value = serde_json::from_slice(&fixture("llama/config.json")).unwrap();
            let field = config.as_object().unwrap().keys().nth(at % config.as_object().unwrap().len()).unwrap().clone();
            let value = [json!(number), json!(float), json!(null), json!([]), json!({}), json!("x"), json!([1]), json!(true), json!({"rope_type": "llama3", "rope_theta": number, "factor": float})][pick].clone();
            let mut config = config;
            config[field.as_str()] = value;
            let _ = ModelConfig::parse(config.to_string().as_bytes(), Some(&garbage));
            let _ = ModelConfig::parse(config.to_string().as_bytes(), None);
            let _ = ModelConfig::parse(&garbage, None);
        }
    }
}
