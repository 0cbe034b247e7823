//! What an operator wants to see before the first request: what runs, how much of it fits, and where it listens.

use tokenflow_hint_api::HintUrl;

use crate::{
    config::{DeviceSummary, EngineConfig, EngineInfo},
    scheduler::{Pacing, PacingLaw},
};

/// Aligned lines for a person.
pub fn table(config: &EngineConfig, info: &EngineInfo, url: &str) -> String {
    let loaded = &info.loaded;
    let prefix_caching = if loaded.enable_prefix_caching { "on" } else { "off" };
    let hints = match &config.hint_url {
        HintUrl::None => "no hint server".to_owned(),
        url => format!("hints from {url}"),
    };
    let task = info.embedding_size.map_or(String::new(), |size| format!(", embeds in {size} dimensions"));
    let offloading = match config.kv_offloading_bytes {
        0 => String::new(),
        bytes => format!(", {:.1} MiB of host memory for blocks that give way", mib(bytes)),
    };
    let rows = [
        ("model", format!("{} ({}{task})", config.model_name, loaded.architecture)),
        (
            "weights",
            format!("{:.1} MiB, computed in {}, loaded in {:.1} s", mib(loaded.weights_bytes), loaded.dtype, loaded.took.as_secs_f64()),
        ),
        (
            "KV cache",
            format!(
                "{:.1} MiB of {}: {} blocks of {} tokens, prefix caching {prefix_caching}{offloading}",
                mib(loaded.kv_cache_bytes),
                loaded.kv_cache_dtype,
                info.num_blocks,
                info.block_size,
            ),
        ),
        ("context", format!("{} tokens; {:.1} requests of that length fit at a time", info.max_model_len, info.max_concurrency())),
        ("step", format!("at most {} tokens of {} sequences", info.max_num_batched_tokens, info.max_num_seqs)),
        ("device", loaded.device.to_string()),
        ("pacing", format!("{}, {hints}", pacing(config))),
        ("listening", url.to_owned()),
    ];
    rows.into_iter()
        .chain(shares(&loaded.device).map(|shares| ("memory", shares)))
        .map(|(name, value)| format!("  {name:<10} {value}\n"))
        .collect()
}

/// The same as one event of the log, for machines.
pub fn log(config: &EngineConfig, info: &EngineInfo, url: &str) {
    let loaded = &info.loaded;
    tracing::info!(
        model = config.model_name,
        architecture = loaded.architecture,
        dtype = loaded.dtype,
        kv_cache_dtype = loaded.kv_cache_dtype,
        weights_mib = mib(loaded.weights_bytes),
        kv_blocks = info.num_blocks,
        block_size = info.block_size,
        kv_mib = mib(loaded.kv_cache_bytes),
        kv_offloading_mib = mib(config.kv_offloading_bytes),
        prefix_caching = loaded.enable_prefix_caching,
        max_model_len = info.max_model_len,
        concurrency_at_full_length = info.max_concurrency(),
        max_num_batched_tokens = info.max_num_batched_tokens,
        max_num_seqs = info.max_num_seqs,
        device = %loaded.device,
        memory = shares(&loaded.device),
        pacing = pacing(config),
        hints = %config.hint_url,
        listening = url,
        seconds = loaded.took.as_secs_f64(),
        "serving"
    );
}

/// Who has a GPU's memory, and which share of it may be in use.
fn shares(device: &DeviceSummary) -> Option<String> {
    let DeviceSummary::Gpu { memory, .. } = device else { return None };
    Some(format!(
        "{:.1} MiB, {} of it for use: {:.1} weights, {:.1} activations, {:.1} graphs, {:.1} KV cache, {:.1} others",
        mib(memory.total),
        memory.utilization,
        mib(memory.weights),
        mib(memory.activations),
        mib(memory.graphs),
        mib(memory.kv_cache),
        mib(memory.others),
    ))
}

/// As `--pacing` calls it, and `--pacing-law` where that is not the usual one.
fn pacing(config: &EngineConfig) -> String {
    match (config.pacing, config.pacing_law) {
        (Pacing::Off, _) => "off".to_owned(),
        (Pacing::Global, _) => "global".to_owned(),
        (Pacing::PerConnection, PacingLaw::Window) => "per-connection".to_owned(),
        (Pacing::PerConnection, law) => format!("per-connection by {}", law.name()),
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
