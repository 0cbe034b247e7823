//! Every architecture: greedy ids and log-probabilities as the CPU's in f32, and in bf16 as near to transformers' f32 as its own bf16 is.

use crate::{
    device::{bf16, distance, exact, exactly_on_cpu, on_gpu, prompt},
    driver::{Case, Cut, Reference, compare, drive, reference},
    weights::Model,
};

const TOLERANCE: f32 = 1e-3;

fn cases(prompts: &[usize], outputs: usize) -> Vec<Case> {
    let case = |(i, &len): (usize, &usize)| Case {
        prompt_ids: prompt(i as u32 + 1, len),
        output_ids: vec![0; outputs],
        logprobs: vec![],
        top: vec![vec![]; outputs],
    };
    prompts.iter().enumerate().map(case).collect()
}

fn check(name: &str) {
    let model = Model::new(name);
    let folder = &model.folder();
    // A prompt in chunks beside one that is decoded already.
    let (cases, cut) = (cases(&[2, 17], 4), Cut { block_size: 8, chunk: 6, together: true });
    let ours = drive(&mut on_gpu(folder, exact()), &cases, cut, false);
    let theirs = drive(&mut exactly_on_cpu(folder), &cases, cut, false);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let distance = distance(ours, theirs);
        assert!(distance < TOLERANCE, "{name}: {distance}");
    }
    let Reference { bf16: theirs, mut cases } = reference(folder);
    cases.truncate(1);
    let sampled = drive(&mut on_gpu(folder, bf16()), &cases, Cut { chunk: 64, ..cut }, true);
    let (worst, _) = compare(&cases[0], &sampled[0]);
    assert!(worst < 1.25 * theirs.worst, "{name} in bf16: {worst} where transformers has {}", theirs.worst);
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
