//! A quantised folder: `config.json`, behind a zero byte a safetensors file. AWQ, GPTQ and FP8 matrices are packed, or refused by name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_engine::weights::{Checkpoint, Cut, Loader};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let Some(zero) = bytes.iter().position(|&b| b == 0) else { return };
    let (config, tensors) = (&bytes[..zero], bytes[zero + 1..].to_vec());
    let Ok(checkpoint) = Checkpoint::from_bytes_with_config("model.safetensors", tensors, config) else { return };
    for (rank, size) in [(0, 1), (0, 2), (1, 2)] {
        let loader = Loader::for_rank(&checkpoint, rank, size);
        for shape in [[32, 64], [64, 32]] {
            for cut in [Cut::None, Cut::Rows, Cut::Cols] {
                let _ = loader.matrix("a.weight", shape, cut).map(|matrix| matrix.view().check());
            }
        }
    }
});
