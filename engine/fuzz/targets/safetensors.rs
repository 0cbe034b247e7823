//! A safetensors file: whatever its header says, tensors are inside it or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_engine::weights::{Checkpoint, Cut, Loader};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    if let Ok(checkpoint) = Checkpoint::from_bytes("model.safetensors", bytes.to_vec()) {
        for rank in 0..2 {
            let loader = Loader::for_rank(&checkpoint, rank, 2);
            for cut in [Cut::None, Cut::Rows, Cut::Cols] {
                let _ = loader.matrix("a", [2, 4], cut).map(|matrix| matrix.view().check());
                let _ = loader.vector("b", 4, cut);
            }
        }
    }
});
