//! The server itself, as people start it: how long it takes to be ready with and without compiled kernels, and what it does under load, over
//! HTTP. The result has the fields of `vllm bench serve`.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokenflow_tests::{
    daemon::{Daemon, binary},
    http,
};

use crate::{
    kernels::Random,
    models::FAMILIES,
    open::{self, PREBUILT},
    report::Finding,
    sections::{Settings, Teller},
    speed,
    step::Shape,
};

/// A server may compile all kernels before it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// # Errors
/// When no folder for a model can be made.
pub fn run(settings: &Settings, teller: &Teller) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let about = |seconds| Duration::from_secs(if settings.tiny { 1 } else { seconds });
    teller.measure("start", about(10), || starts(settings, scratch.path()));
    let shape = speed::shape(settings.tiny);
    teller.measure("bench serve", about(45), || {
        let folder = speed::folder(settings, &shape, teller)?;
        under_load(settings, &folder, &shape)
    });
    Ok(())
}

/// A tiny model with nothing kept on disk, then again.
fn starts(settings: &Settings, scratch: &Path) -> anyhow::Result<Vec<Finding>> {
    if open::prebuilt().is_some() {
        return Ok(vec![Finding::skipped("first start, kernels compiled", "kernels were compiled elsewhere")]);
    }
    let (folder, cache) = (scratch.join("model"), scratch.join("cache"));
    FAMILIES.iter().find(|family| family.name == "qwen2").context("the family is there")?.write(&folder)?;
    fs::create_dir_all(&cache)?;
    let mut found = Vec::new();
    let mut texts = Vec::new();
    for name in ["first start, kernels compiled", "second start, kernels kept"] {
        let began = Instant::now();
        let mut command = server(settings, &folder)?;
        command.env("TOKENFLOW_CACHE", &cache).env_remove(PREBUILT).args([
            "--dtype",
            "bfloat16",
            "--max-model-len",
            "128",
            "--num-gpu-blocks-override",
            "64",
        ]);
        command.args(["--max-num-seqs", "4", "--max-num-batched-tokens", "64"]);
        let daemon = Daemon::start_within(command, START_TIMEOUT)?;
        found.push(Finding::measurement(name, began.elapsed().as_secs_f64(), "s"));
        texts.push(completion(&daemon.url, &[60, 61, 62], 4)?);
    }
    ensure!(texts[0] == texts[1], "the second start says {:?}, and the first said {:?}", texts[1], texts[0]);
    found.push(Finding::check("both starts say the same", &Ok(()), None, 0.0));
    Ok(found)
}

fn server(settings: &Settings, folder: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("tokenflow-engine")?);
    command.arg("serve").arg(folder).args(["--port", "0", "--device", &settings.device, "--hint-url", "none"]);
    Ok(command)
}

fn completion(url: &str, prompt: &[u32], max_tokens: usize) -> anyhow::Result<String> {
    let body = json!({"model": "", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true});
    let (status, answer) = http::post_json(url, "/v1/completions", &with_model(url, body)?)?;
    ensure!(status == 200, "{status}: {answer}");
    Ok(answer["choices"][0]["text"].as_str().context("a text")?.to_owned())
}

fn with_model(url: &str, mut body: Value) -> anyhow::Result<Value> {
    let models = http::get_json(url, "/v1/models")?;
    body["model"] = models["data"][0]["id"].clone();
    Ok(body)
}

/// What is sent.
struct Plan {
    prompts: usize,
    at_once: usize,
    input: usize,
    output: usize,
}

/// One stream as its client saw it, in seconds.
struct Stream {
    first: f64,
    gaps: Vec<f64>,
    whole: f64,
    tokens: u64,
}

fn under_load(settings: &Settings, folder: &Path, shape: &Shape) -> anyhow::Result<Vec<Finding>> {
    let plan = if settings.tiny {
        Plan { prompts: 3, at_once: 2, input: 6, output: 3 }
    } else {
        Plan { prompts: 256, at_once: 64, input: 512, output: 128 }
    };
    let mut command = server(settings, folder)?;
    command.args(["--disable-log-requests", "--no-enable-prefix-caching"]);
    if settings.tiny {
        command.args(["--max-num-seqs", "4", "--max-num-batched-tokens", "32", "--num-gpu-blocks-override", "64"]);
    }
    let daemon = Daemon::start_within(command, START_TIMEOUT)?;
    let url = daemon.url.clone();
    completion(&url, &[60, 61, 62], 2)?;

    let mut random = Random(3);
    let prompts: Vec<Vec<u32>> =
        (0..plan.prompts).map(|_| (0..plan.input).map(|_| random.below(shape.vocabulary) as u32).collect()).collect();
    let body = with_model(
        &url,
        json!({"max_tokens": plan.output, "temperature": 0, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true}}),
    )?;
    let next = std::sync::Mutex::new(prompts.iter());
    let began = Instant::now();
    let streams: Vec<anyhow::Result<Stream>> = thread::scope(|scope| {
        let work = || {
            let mut own = Vec::new();
            // Taken in a statement of its own, so that others can take theirs while this one streams.
            loop {
                let prompt = next.lock().expect("nobody panics with it").next();
                let Some(prompt) = prompt else { return own };
                own.push(stream(&url, &body, prompt));
            }
        };
        let workers: Vec<_> = (0..plan.at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    let duration = began.elapsed().as_secs_f64();
    let (done, failed): (Vec<_>, Vec<_>) = streams.into_iter().partition(Result::is_ok);
    let done: Vec<Stream> = done.into_iter().flatten().collect();
    let first_failure = failed.into_iter().find_map(Result::err);
    let result = summary(&done, plan.prompts - done.len(), &plan, duration);
    let mut found = vec![
        Finding::measurement("output over HTTP", result["output_throughput"].as_f64().unwrap_or_default(), "tokens/s"),
        Finding::measurement("time to first token, median", result["median_ttft_ms"].as_f64().unwrap_or_default(), "ms"),
        Finding::measurement("inter-token latency, median", result["median_itl_ms"].as_f64().unwrap_or_default(), "ms"),
        Finding::measurement("inter-token latency, p99", result["p99_itl_ms"].as_f64().unwrap_or_default(), "ms"),
        Finding::Object { name: "bench serve".into(), value: result },
    ];
    let complete = done.iter().all(|stream| stream.tokens == plan.output as u64);
    let all = match first_failure {
        Some(error) => Err(error),
        None if !complete => Err(anyhow::anyhow!("a stream ended early")),
        None => Ok(()),
    };
    found.push(Finding::check("all streams came whole", &all, None, duration));
    Ok(found)
}

/// Sends one prompt and reads its events.
fn stream(url: &str, body: &Value, prompt: &[u32]) -> anyhow::Result<Stream> {
    let mut body = body.clone();
    body["prompt"] = json!(prompt);
    let began = Instant::now();
    let mut response = http::send(http::address(url)?, "POST", "/v1/completions", Some(&body))?;
    let status = response.status;
    if status != 200 {
        bail!("{status}: {}", response.read_all()?);
    }
    let (mut at, mut tokens) = (Vec::new(), 0);
    while let Some(chunk) = response.chunk()? {
        let now = began.elapsed().as_secs_f64();
        for event in String::from_utf8_lossy(&chunk).lines().filter_map(|line| line.strip_prefix("data: ")) {
            if event == "[DONE]" {
                continue;
            }
            let event: Value = serde_json::from_str(event).with_context(|| format!("not an event: {event}"))?;
            match event["usage"]["completion_tokens"].as_u64() {
                Some(count) => tokens = count,
                None => at.push(now),
            }
        }
    }
    let first = *at.first().context("a stream without any token")?;
    Ok(Stream { first, gaps: at.windows(2).map(|pair| pair[1] - pair[0]).collect(), whole: began.elapsed().as_secs_f64(), tokens })
}

/// As `vllm bench serve` writes it.
fn summary(done: &[Stream], failed: usize, plan: &Plan, duration: f64) -> Value {
    let output: u64 = done.iter().map(|stream| stream.tokens).sum();
    let input = (done.len() * plan.input) as u64;
    let mut result = json!({
        "endpoint_type": "openai", "backend": "openai", "num_prompts": plan.prompts, "request_rate": "inf", "burstiness": 1.0,
        "max_concurrency": plan.at_once, "duration": duration, "completed": done.len(), "failed": failed,
        "total_input_tokens": input, "total_output_tokens": output, "request_throughput": done.len() as f64 / duration,
        "request_goodput": null, "output_throughput": output as f64 / duration, "total_token_throughput": (input + output) as f64 / duration,
    });
    let per_token = |stream: &Stream| (stream.tokens > 1).then(|| (stream.whole - stream.first) / (stream.tokens - 1) as f64);
    let series = [
        ("ttft", done.iter().map(|stream| stream.first).collect::<Vec<_>>()),
        ("tpot", done.iter().filter_map(per_token).collect()),
        ("itl", done.iter().flat_map(|stream| stream.gaps.iter().copied()).collect()),
    ];
    for (name, mut seconds) in series {
        seconds.sort_by(f64::total_cmp);
        let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
        let deviation = (seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / seconds.len().max(1) as f64).sqrt();
        let at = |share: f64| seconds.get(((seconds.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or_default();
        for (kind, value) in [("mean", mean), ("median", at(0.5)), ("std", deviation), ("p99", at(0.99))] {
            result[format!("{kind}_{name}_ms")] = json!(1e3 * value);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_fields_of_vllms() {
        let stream = || Stream { first: 0.1, gaps: vec![0.01, 0.03], whole: 0.14, tokens: 3 };
        let plan = Plan { prompts: 3, at_once: 2, input: 10, output: 3 };
        let result = summary(&[stream(), stream()], 1, &plan, 2.0);
        assert_eq!((&result["completed"], &result["failed"], &result["total_output_tokens"]), (&json!(2), &json!(1), &json!(6)));
        assert_eq!(result["output_throughput"], json!(3.0));
        assert_eq!(result["median_ttft_ms"], json!(100.0));
        let close = |key: &str, value: f64| assert!((result[key].as_f64().unwrap() - value).abs() < 1e-9, "{key}: {result}");
        close("mean_tpot_ms", 20.0);
        close("mean_itl_ms", 20.0);
        close("p99_itl_ms", 30.0);
    }
}
