//! An engine on a device, and what it says and when.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokenflow_engine::{
    EngineConfig, SamplingParams,
    cli::{DTypeArg, DeviceArg, KvCacheDTypeArg},
    engine::{GenerateRequest, Generation, LoadedModel, Served},
    sampling::SampledToken,
};
use tokio::{runtime::Runtime, task::JoinSet};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    /// Likeliest tokens reported beside each.
    pub logprobs: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Said {
    pub tokens: Vec<SampledToken>,
    /// When each came, since the first request was sent.
    pub at: Vec<Duration>,
}

/// An engine without a server.
pub struct Running {
    served: Served,
    runtime: Runtime,
    /// Opening, weights, kernels, cache.
    pub loaded_in: Duration,
}

/// What differs from `serve`'s defaults.
pub fn config(folder: &Path, device: DeviceArg, dtype: DTypeArg) -> EngineConfig {
    let mut config = EngineConfig::new(folder);
    config.device = device;
    config.dtype = dtype;
    config.kv_cache_dtype = KvCacheDTypeArg::Auto;
    config
}

impl Running {
    /// # Errors
    /// When the model cannot be loaded there.
    pub fn start(config: &EngineConfig) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")?;
        let began = Instant::now();
        let served = runtime.block_on(async { LoadedModel::load(config)?.start(config) })?;
        Ok(Self { served, runtime, loaded_in: began.elapsed() })
    }

    /// Bytes of the model's weights.
    pub fn weights_bytes(&self) -> usize {
        self.served.core.info().loaded.weights_bytes
    }

    /// Sends all requests at once and waits for all answers, none of which ends early.
    ///
    /// # Errors
    /// When one is refused or fails.
    pub fn ask(&self, requests: &[Request]) -> anyhow::Result<Vec<Said>> {
        let began = Instant::now();
        self.runtime.block_on(async {
            let mut answers = JoinSet::new();
            for (i, request) in requests.iter().enumerate() {
                let sampling = SamplingParams { logprobs: request.logprobs, ..SamplingParams::greedy() };
                let request =
                    GenerateRequest { ignore_eos: true, ..GenerateRequest::new(request.prompt.clone(), request.max_tokens, sampling) };
                let generation = self.served.core.submit(request)?;
                answers.spawn(async move { (i, listen(generation, began).await) });
            }
            let mut all: Vec<Option<Said>> = vec![None; requests.len()];
            while let Some(answer) = answers.join_next().await {
                let (i, said) = answer?;
                all[i] = Some(said?);
            }
            Ok(all.into_iter().flatten().collect())
        })
    }
}

async fn listen(mut generation: Generation, began: Instant) -> anyhow::Result<Said> {
    let mut said = Said { tokens: Vec::new(), at: Vec::new() };
    while let Some(token) = generation.next().await {
        said.tokens.push(token?.token);
        said.at.push(began.elapsed());
    }
    Ok(said)
}
