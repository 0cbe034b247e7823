//! Whole steps of one model through the engine: loading, a lone stream, prompts, and many streams at once.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokenflow_engine::cli::{DTypeArg, DeviceArg, KvCacheDTypeArg};

use crate::{
    kernels::Random,
    models, open,
    report::Finding,
    running::{Request, Running, Said, config},
    sections::{Settings, Teller},
    step::{Load, Rates, Shape, operations},
};

/// Where a section finds the model that the one before it wrote.
pub(crate) fn folder(settings: &Settings, shape: &Shape, teller: &Teller) -> anyhow::Result<std::path::PathBuf> {
    let folder = settings.scratch.join(shape.name.replace(' ', "-"));
    let whole = settings.scratch.join("written");
    if !whole.exists() {
        let began = Instant::now();
        models::write_shape(&folder, shape)?;
        fs::write(&whole, "")?;
        let bytes = fs::metadata(folder.join("model.safetensors"))?.len() as f64;
        let detail = format!("{:.1} GB in {}", bytes / 1e9, folder.display());
        let value = began.elapsed().as_secs_f64();
        teller.tell(&Finding::Measurement {
            name: "random weights written".into(),
            value,
            unit: "s".into(),
            bound: None,
            detail: Some(detail),
        });
    }
    Ok(folder)
}

/// How much is asked for.
struct Sizes {
    lone_tokens: usize,
    prompt: usize,
    prompts: usize,
    streams: usize,
    streams_prompt: usize,
    streams_tokens: usize,
}

impl Sizes {
    fn of(tiny: bool) -> Self {
        if tiny {
            Self { lone_tokens: 3, prompt: 24, prompts: 1, streams: 3, streams_prompt: 4, streams_tokens: 3 }
        } else {
            Self { lone_tokens: 256, prompt: 2048, prompts: 16, streams: 256, streams_prompt: 1000, streams_tokens: 256 }
        }
    }
}

pub(super) fn measure(settings: &Settings, shape: &Shape, rates: Rates, teller: &Teller) -> anyhow::Result<()> {
    let device: DeviceArg = settings.device.parse().map_err(anyhow::Error::msg)?;
    let folder = folder(settings, shape, teller)?;
    let about = |seconds| Duration::from_secs(if settings.tiny { 1 } else { seconds });
    for (kv, name) in [(KvCacheDTypeArg::Auto, "bf16 cache"), (KvCacheDTypeArg::Fp8, "fp8 cache")] {
        if settings.tiny && kv == KvCacheDTypeArg::Fp8 {
            continue;
        }
        wait_for_memory(&settings.device)?;
        teller.measure(name, about(45), || on_device(&folder, device, kv, name, shape, rates, settings.tiny));
    }
    Ok(())
}

/// Waits until most of the card's memory is free: an engine that was dropped gives its own back when its thread has ended.
fn wait_for_memory(device: &str) -> anyhow::Result<()> {
    let gpu = open::gpu(device)?;
    let began = Instant::now();
    loop {
        let memory = gpu.memory()?;
        if memory.free > memory.total / 10 * 8 || began.elapsed() > Duration::from_secs(10) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn on_device(
    folder: &Path,
    device: DeviceArg,
    kv: KvCacheDTypeArg,
    name: &str,
    shape: &Shape,
    rates: Rates,
    tiny: bool,
) -> anyhow::Result<Vec<Finding>> {
    let sizes = Sizes::of(tiny);
    let mut config = config(folder, device, DTypeArg::Auto);
    config.kv_cache_dtype = kv;
    config.scheduling.enable_prefix_caching = false;
    if tiny {
        (config.max_num_seqs, config.max_num_batched_tokens, config.num_blocks) = (4, 32, Some(64));
    } else {
        config.max_num_batched_tokens = 8192;
    }
    let running = Running::start(&config)?;
    let mut found = Vec::new();
    let mut tell = |finding: Finding| {
        if let Finding::Measurement { name, value, unit, .. } = &finding {
            eprintln!("   {name}: {value:.2} {unit}");
        }
        found.push(finding);
    };
    let gigabytes = running.weights_bytes() as f64 / 1e9;
    let seconds = running.loaded_in.as_secs_f64();
    tell(Finding::measurement(format!("{name}: start with kernels, weights and cache"), seconds, "s"));
    tell(Finding::measurement(format!("{name}: weights at least at"), gigabytes / seconds, "GB/s"));
    let mut random = Random(11);
    let mut request = |prompt: usize, max_tokens| Request {
        prompt: (0..prompt).map(|_| random.below(shape.vocabulary) as u32).collect(),
        max_tokens,
        logprobs: None,
    };
    // What is compiled, recorded or allocated at the first use is no part of what follows.
    running.ask(&[request(8, 4)])?;

    let lone = running.ask(&[request(8, sizes.lone_tokens)])?;
    let rate = rate(&lone[0].at).context("a lone stream")?;
    let alone = floor(shape, &Load::decode(1, 8 + sizes.lone_tokens / 2), rates);
    tell(Finding::bounded(format!("{name}: one stream"), rate, "tokens/s", 1.0 / alone));

    let prompts: Vec<Request> = (0..sizes.prompts).map(|_| request(sizes.prompt, 1)).collect();
    let (answers, cpu, seconds) = timed(|| running.ask(&prompts))?;
    ensure!(answers.iter().all(|said| said.tokens.len() == 1), "a prompt has no first token");
    let tokens = (sizes.prompts * sizes.prompt) as f64;
    let floor_prefill = floor_of_prompts(shape, &sizes, rates);
    tell(Finding::bounded(format!("{name}: prompts of {} tokens", sizes.prompt), tokens / seconds, "tokens/s", tokens / floor_prefill));
    tell(Finding::measurement(format!("{name}: processor time of prompts"), 1e3 * cpu / sizes.prompts as f64, "ms a prompt"));

    let streams: Vec<Request> = (0..sizes.streams).map(|_| request(sizes.streams_prompt, sizes.streams_tokens)).collect();
    let (answers, cpu, seconds) = timed(|| running.ask(&streams))?;
    let tokens: usize = answers.iter().map(|said| said.tokens.len()).sum();
    ensure!(tokens == sizes.streams * sizes.streams_tokens, "{tokens} tokens came, not {}", sizes.streams * sizes.streams_tokens);
    let what = format!("{name}: {} streams, {} tokens in, {} out", sizes.streams, sizes.streams_prompt, sizes.streams_tokens);
    tell(Finding::measurement(what, tokens as f64 / seconds, "output tokens/s"));
    if let Some(steady) = steady_rate(&answers) {
        let bound =
            sizes.streams as f64 / floor(shape, &Load::decode(sizes.streams, sizes.streams_prompt + sizes.streams_tokens / 2), rates);
        tell(Finding::bounded(format!("{name}: the same while all decode"), steady, "tokens/s", bound));
    }
    tell(Finding::measurement(
        format!("{name}: processor time of all threads"),
        1e6 * cpu / sizes.streams_tokens as f64,
        "µs a step at most",
    ));
    Ok(found)
}

/// Tokens per second of a stream after its first.
fn rate(at: &[Duration]) -> Option<f64> {
    let (first, last) = (at.first()?, at.last()?);
    let seconds = last.checked_sub(*first)?.as_secs_f64();
    (at.len() > 1 && seconds > 0.0).then(|| (at.len() - 1) as f64 / seconds)
}

/// Tokens per second between the last stream's first token and the first stream's last, when nobody waits for a prompt.
fn steady_rate(answers: &[Said]) -> Option<f64> {
    let from = answers.iter().filter_map(|said| said.at.first()).max()?;
    let to = answers.iter().filter_map(|said| said.at.last()).min()?;
    let seconds = to.checked_sub(*from)?.as_secs_f64();
    let tokens = answers.iter().flat_map(|said| &said.at).filter(|at| *at > from && *at <= to).count();
    (seconds > 0.0 && tokens > 0).then(|| tokens as f64 / seconds)
}

/// The least seconds of a step.
fn floor(shape: &Shape, load: &Load, rates: Rates) -> f64 {
    operations(shape, load).iter().map(|o| o.times as f64 * rates.seconds(o.bytes, o.flops)).sum()
}

fn floor_of_prompts(shape: &Shape, sizes: &Sizes, rates: Rates) -> f64 {
    sizes.prompts as f64 * floor(shape, &Load::prefill(sizes.prompt), rates)
}

/// What `work` gives, the processor time of all threads and the time that passed, in seconds.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64, f64)> {
    let (began, cpu) = (Instant::now(), processor_seconds());
    let result = work()?;
    Ok((result, processor_seconds() - cpu, began.elapsed().as_secs_f64()))
}

fn processor_seconds() -> f64 {
    // SAFETY: plain numbers, which the call fills.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_came_between_the_first_token_and_the_last() {
        let at = |ms: &[u64]| ms.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
        assert_eq!(rate(&at(&[100, 200, 300])), Some(10.0));
        assert_eq!(rate(&at(&[100])), None);
        let said = |ms: &[u64]| Said { tokens: Vec::new(), at: at(ms) };
        // From 200 to 400 ms: tokens at 300, 400 and 250, 350.
        assert_eq!(steady_rate(&[said(&[100, 200, 300, 400]), said(&[200, 250, 350, 450])]), Some(20.0));
        assert_eq!(steady_rate(&[said(&[100, 200]), said(&[300, 400])]), None);
    }
}
