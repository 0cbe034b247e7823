//! `config.json`, and behind a zero byte `generation_config.json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_engine::model::ModelConfig;

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let mut parts = bytes.splitn(2, |&b| b == 0);
    let (config, generation) = (parts.next().unwrap_or_default(), parts.next());
    if let Ok(config) = ModelConfig::parse(config, generation) {
        let _ = config.rope.inv_freq();
    }
});
