use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ExpertsConfig, ModelConfig, NormKind, RopeScaling};
use crate::backend::{Activation, Routing};

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

/// One of each architecture.
const MODELS: &[&str] = &[
    "llama",
    "qwen3",
    "architectures/gemma2",
    "architectures/gemma3",
    "architectures/gpt-neox",
    "architectures/mistral",
    "architectures/mixtral",
    "architectures/qwen2",
    "architectures/qwen3-moe",
    "architectures/yarn",
];

fn parsed(config: &Value) -> Result<ModelConfig, String> {
    ModelConfig::parse(config.to_string().as_bytes(), None).map_err(|e| e.to_string())
}

/// The fixture's config, changed.
fn with(model: &str, change: impl Fn(&mut Value)) -> Result<ModelConfig, String> {
    let mut config = serde_json::from_slice(&fixture(&format!("architectures/{model}/config.json"))).unwrap();
    change(&mut config);
    parsed(&config)
}

#[test]
fn the_text_part_of_a_multimodal_model_has_defaults() {
    let config = parsed(&json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106], "vision_config": {"hidden_size": 1152},
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
    }))
    .unwrap();
    assert_eq!((config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size), (8, 4, 256, 262_208));
    assert_eq!((config.norm_kind, config.activation, config.qk_norm), (NormKind::RmsPlusOne, Activation::GeluTanh, true));
    assert_eq!((config.embedding_scale, config.attention_scale), (2560f32.sqrt(), 0.0625));
    assert_eq!(config.eos_token_ids, [1, 106]);
    assert!(config.tie_word_embeddings);
    let global: Vec<usize> = (0..34).filter(|&layer| config.sliding_windows[layer].is_none()).collect();
    assert_eq!(global, [5, 11, 17, 23, 29]);
    assert_eq!((config.rope.theta, config.rope.scaling), (1e6, RopeScaling::Linear { factor: 8.0 }));
    assert_eq!(config.local_rope.map(|rope| (rope.theta, rope.scaling)), Some((1e4, RopeScaling::Default)));
    let refusal = with("gemma3", |c| c["use_bidirectional_attention"] = json!(true)).unwrap_err();
    assert_eq!(refusal, "config.json: field \"use_bidirectional_attention\" is true, which is not supported");
}

#[test]
fn gpt_neox_has_names_of_its_own() {
    let old = with("gpt-neox", |c| {
        c.as_object_mut().unwrap().remove("rope_parameters");
        (c["rotary_pct"], c["rotary_emb_base"]) = (json!(0.25), json!(10000));
    });
    assert_eq!(old, with("gpt-neox", |_| ()));
    let config = old.unwrap();
    assert_eq!((config.norm_kind, config.norm_eps, config.parallel_residual), (NormKind::Layer, 1e-5, true));
    assert_eq!((config.rope.rotary_dim, config.activation, config.attention_bias), (4, Activation::Gelu, true));
}

#[test]
fn experts_are_where_the_config_puts_them() {
    let experts = |change: &dyn Fn(&mut Value)| with("qwen3-moe", change).map(|config| config.experts.unwrap());
    let routing = Routing { top_k: 3, renormalize: true };
    let expected = ExpertsConfig { num_experts: 6, intermediate_size: 40, routing, layers: vec![true, false, true] };
    assert_eq!(experts(&|_| ()), Ok(expected));
    assert_eq!(experts(&|c| c["decoder_sparse_step"] = json!(3)).unwrap().layers, [false, false, true]);
    assert_eq!(
        experts(&|c| c["num_experts_per_tok"] = json!(7)).unwrap_err(),
        "config.json: field \"num_experts_per_tok\" is 7, more than the 6 experts"
    );
    let mixtral = with("mixtral", |_| ()).unwrap().experts.unwrap();
    assert_eq!((mixtral.num_experts, mixtral.intermediate_size, mixtral.layers), (4, 96, vec![true; 2]));
}

#[test]
fn biases_and_windows_follow_the_architecture() {
    let qwen2 = with("qwen2", |c| c["sliding_window"] = json!(8)).unwrap();
    assert_eq!((qwen2.attention_bias, qwen2.attention_output_bias, qwen2.sliding_windows), (true, false, vec![None; 2]));
    assert_eq!(with("mistral", |_| ()).unwrap().sliding_windows, [Some(12); 2]);
    assert_eq!(with("mistral", |c| c["sliding_window"] = json!(null)).unwrap().sliding_windows, [None; 2]);
    assert_eq!(with("yarn", |c| c["max_position_embeddings"] = json!(64)).unwrap().max_position_embeddings, 256);
}

proptest! {
    #[test]
    fn no_config_makes_it_panic(model in prop::sample::select(MODELS), at in 0usize..40, pick in 0usize..9, number: i64, float: f64, garbage in prop::collection::vec(any::<u8>(), 0..60)) {
        let config: Value = serde_json::from_slice(&fixture(&format!("{model}/config.json"))).unwrap();
        let field = config.as_object().unwrap().keys().nth(at % config.as_object().unwrap().len()).unwrap().clone();
        let value = [json!(number), json!(float), json!(null), json!([]), json!({}), json!("x"), json!([1]), json!(true), json!({"rope_type": "llama3", "rope_theta": number, "factor": float})][pick].clone();
        let mut config = config;
        config[field.as_str()] = value;
        let _ = ModelConfig::parse(config.to_string().as_bytes(), Some(&garbage));
        let _ = ModelConfig::parse(config.to_string().as_bytes(), None);
        let _ = ModelConfig::parse(&garbage, None);
    }
}
