//! Whole models through the emulated kernels, held against what transformers says of them: as near to its f32 as its own bf16 is.

#[allow(dead_code)]
#[path = "../../parity/driver.rs"]
mod driver;
#[path = "../../parity/weights.rs"]
mod weights;

mod backend;
mod memory;
mod steps;

use half::bf16;
use tokenflow_engine::{
    executor::{CacheSize, LocalExecutor},
    model::{self, ModelConfig},
    weights::{Checkpoint, Loader},
};

use self::{
    backend::Emulated,
    driver::{Cut, Reference, compare, drive, reference},
};
use crate::{checks::elements::Element, emulator::library};

/// Activations of type `T`, over keys and values in bf16.
fn check<T: Element + Sync + Send>(name: &str, warp: u32, cut: Cut) {
    let model = weights::Model::new(name);
    let folder = &model.folder();
    let Reference { bf16, cases } = reference(folder);
    let config = ModelConfig::open(folder).expect("valid");
    let checkpoint = Checkpoint::open(folder).expect("valid");
    let backend = Emulated::<T>::new(library(warp), 5);
    let model = model::load(&config, Loader::new(&checkpoint), &backend, 0..config.num_layers).expect("valid");
    let cache = CacheSize { num_blocks: 512 / cut.block_size, block_size: cut.block_size };
    let mut executor = LocalExecutor::new(backend, model, cache, 1024).expect("small");
    let sampled = drive(&mut executor, &cases, cut, true);
    let compared: Vec<_> = cases.iter().zip(&sampled).map(|(case, sampled)| compare(case, sampled)).collect();
    let worst = compared.iter().map(|c| c.0).fold(0.0, f32::max);
    let agree = compared.iter().map(|c| c.1).sum::<usize>();
    println!("{name}, {}: log-probabilities within {worst:.3} ({:.3}), top-1 agrees at {agree} ({})", T::NAME, bf16.worst, bf16.agree);
    assert!(worst < 1.25 * bf16.worst, "{name}, {}: {worst} where transformers has {}", T::NAME, bf16.worst);
    assert!(agree + 2 >= bf16.agree, "{name}, {}: top-1 agrees at {agree} where transformers has {}", T::NAME, bf16.agree);
}

fn in_both(name: &str) {
    check::<f32>(name, 32, Cut { block_size: 8, chunk: 33, together: true });
    check::<bf16>(name, 32, Cut { block_size: 16, chunk: 64, together: true });
}

macro_rules! architectures {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            in_both($name);
        })*
    };
}

architectures! {
    gemma2_with_soft_caps: "gemma2",
    gemma3_with_local_and_global_layers: "gemma3",
    gpt_neox_with_parallel_residual: "gpt-neox",
    mistral_with_a_window_shorter_than_prompts: "mistral",
    mixtral: "mixtral",
    qwen2_with_biases: "qwen2",
    qwen3_moe_with_a_dense_layer: "qwen3-moe",
    yarn_with_mscale: "yarn",
}

#[test]
fn wide_warps_run_models_too() {
    check::<bf16>("qwen3-moe", 64, Cut { block_size: 16, chunk: 64, together: true });
}
