//! A GGUF file: header, metadata, tensors, and the config and tokenizer that are made of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_engine::{
    model::ModelConfig,
    tokenizer::Tokenizer,
    weights::{Cut, Gguf, Loader},
};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let Ok(gguf) = Gguf::from_bytes("model.gguf", bytes.to_vec()) else { return };
    let loader = Loader::for_rank(&gguf.checkpoint, 1, 2);
    for name in ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.experts.0.up_proj.weight"] {
        for cut in [Cut::None, Cut::Rows, Cut::Cols] {
            let _ = loader.matrix(name, [32, 32], cut).map(|matrix| matrix.view().check());
        }
    }
    let _ = loader.vector("model.norm.weight", 32, Cut::None);
    let _ = ModelConfig::from_gguf(&gguf.config, &gguf.file);
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf.tokenizer, &gguf.tokenizer_config, &gguf.file) {
        if let Ok(ids) = tokenizer.encode("ab <|end|> é", true) {
            let _ = tokenizer.decode(&ids, false);
        }
    }
});
