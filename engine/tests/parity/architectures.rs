//! Every architecture, and every way in which its config may make it differ: engine/fixtures/architectures/make.py.

use serde_json::{Value, json};
use tokenflow_engine::backend::cpu::{ComputeType, CpuConfig, Isa, KvType};

use crate::{
    driver::{Cut, EXACT, ISAS, TOLERANCE, assert_bf16, assert_exact, assert_stages_compose, compare, drive, executor, reference},
    weights::Model,
};

fn check(name: &str) {
    let model = Model::new(name);
    let folder = &model.folder();
    let cases = reference(folder).cases;
    assert!(cases.iter().any(|case| case.prompt_ids.len() > 64) && cases.iter().any(|case| case.prompt_ids.len() < 8));
    for (block_size, chunk, together) in [(16, 1024, false), (4, 7, true), (16, 16, true)] {
        assert!(assert_exact(folder, &cases, EXACT, Cut { block_size, chunk, together }));
    }
    for isa in ISAS {
        assert_exact(folder, &cases, CpuConfig { isa: Some(isa), ..EXACT }, Cut { block_size: 16, chunk: 33, together: true });
    }
    assert_stages_compose(folder);
    [None, Some(Isa::Portable)].into_iter().for_each(|isa| assert_bf16(folder, isa));
    // Not only the ids: every log-probability is the same to the last bit, in either arithmetic.
    for (compute, kv_dtype) in [(ComputeType::F32, KvType::F32), (ComputeType::BF16, KvType::BF16)] {
        let run = |threads, block_size, chunk, together| {
            let mut executor = executor(folder, CpuConfig { compute, kv_dtype, threads, ..EXACT }, block_size).unwrap();
            drive(&mut executor, &cases, Cut { block_size, chunk, together }, false)
        };
        let whole = run(1, 16, 1024, false);
        for (threads, block_size, chunk, together) in [(2, 16, 1024, true), (3, 4, 7, true), (2, 32, 50, true), (1, 16, 16, false)] {
            let cut = run(threads, block_size, chunk, together);
            assert_eq!(cut, whole, "{name}, {compute:?}, {threads} threads, blocks of {block_size}, chunks of {chunk}, {together}");
        }
    }
}

macro_rules! architectures {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            check($name);
        })*
    };
}

architectures! {
    gemma2_with_soft_caps: "gemma2",
    gemma3_with_local_and_global_layers: "gemma3",
    gpt_neox_with_parallel_residual: "gpt-neox",
    gpt_neox_with_serial_residual: "gpt-neox-serial",
    mistral_with_a_window_shorter_than_prompts: "mistral",
    mixtral: "mixtral",
    qwen2_with_biases: "qwen2",
    qwen3_moe_with_a_dense_layer: "qwen3-moe",
    qwen3_moe_without_renormalization: "qwen3-moe-raw",
    yarn_with_mscale: "yarn",
}

/// The fixtures would show it if one of these were ignored.
#[test]
fn every_field_counts() {
    for (name, field, value) in [
        ("gemma2", "attn_logit_softcapping", json!(null)),
        ("gemma2", "final_logit_softcapping", json!(null)),
        ("gemma3", "query_pre_attn_scalar", json!(32)),
        ("gemma3", "sliding_window", json!(11)),
        ("gpt-neox", "use_parallel_residual", json!(false)),
        ("gpt-neox", "rope_parameters", json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5})),
        ("gpt-neox-serial", "hidden_act", json!("gelu")),
        ("mistral", "sliding_window", json!(13)),
        ("qwen3-moe", "norm_topk_prob", json!(false)),
        ("yarn", "rope_parameters", json!({"rope_theta": 1e4, "rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 32})),
    ] {
        let model = Model::new(name);
        let file = model.folder().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config[field] = value;
        std::fs::write(&file, config.to_string()).unwrap();
        let cases = &reference(&model.folder()).cases[1..2];
        let mut executor = executor(&model.folder(), EXACT, 16).unwrap();
        let sampled = drive(&mut executor, cases, Cut { block_size: 16, chunk: 1024, together: true }, true);
        let (worst, _) = compare(&cases[0], &sampled[0]);
        assert!(worst > 2.0 * TOLERANCE, "{name} does not show {field}: {worst}");
    }
}
