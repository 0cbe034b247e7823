//! `--device` and what belongs to it, through the program, on an emulated card. Its libraries are found as the vendors' are, by the loader.

mod program;
mod weights;

use serde_json::json;
use tokenflow_gpu_emulator::Options;

use program::{Server, failure, serve};

/// Sizes that an emulated card is not long busy with.
const SMALL: &str = "--max-num-seqs 2 --threads 1 --port 0";

#[test]
fn a_gpu_answers_what_the_cpu_answers() {
    let chat = json!({
        "messages": [{ "role": "user", "content": "the quick brown fox" }],
        "temperature": 0, "max_tokens": 12, "logprobs": true, "top_logprobs": 2,
    });
    let answer = |device: &str, card: Option<&Options>| {
        let line = serve(&format!(
            "--device {device} --dtype float32 --max-model-len 96 --num-gpu-blocks-override 12 --max-num-batched-tokens 32 {SMALL}"
        ));
        let mut server = Server::start(&line, card);
        let (answer, metrics) = (server.post("/v1/chat/completions", &chat), server.metrics());
        (answer["choices"][0].clone(), metrics, server.stop())
    };
    let (by_cpu, _, _) = answer("cpu", None);
    let (by_gpu, metrics, log) = answer("auto", Some(&Options::nvidia()));
    assert_eq!(by_gpu["message"], by_cpu["message"], "{log}");
    let tokens = |choice: &serde_json::Value| choice["logprobs"]["content"].as_array().unwrap().clone();
    assert!(!tokens(&by_cpu).is_empty());
    for (gpu, cpu) in tokens(&by_gpu).iter().zip(tokens(&by_cpu)) {
        assert_eq!(gpu["token"], cpu["token"]);
        assert!((gpu["logprob"].as_f64().unwrap() - cpu["logprob"].as_f64().unwrap()).abs() < 1e-3, "{gpu} and {cpu}");
    }
    assert!(log.contains("Emulated GPU (cuda:0), sm_90a, 132 multiprocessors"), "{log}");
    assert!(log.contains("2048.0 MiB, 0.9 of it for use: "), "{log}");
    assert!(metrics.contains("gpu_memory_utilization=\"0.9\""), "{metrics}");
}

#[test]
fn without_a_gpu_one_sentence_says_what_was_looked_for() {
    for device in ["cuda", "cuda:7", "rocm"] {
        let (code, said) = failure(&serve(&format!("--device {device}")), None);
        assert_eq!(code, Some(1), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with(&format!("error: --device {device}: ")), "{said}");
        let reason = &lines[0][lines[0].len() / 2..];
        assert_eq!(lines[0].matches(reason).count(), 1, "said once: {said}");
    }
    let mut server = Server::start(&serve(&format!("--device auto {SMALL}")), None);
    let log = server.stop();
    assert!(log.contains("the model runs on the CPU") && log.contains("CPU, 1 threads"), "{log}");
}

#[test]
fn values_that_mean_nothing_are_named_with_their_flag() {
    for (flag, value) in [("--device", "tpu"), ("--gpu-memory-utilization", "0"), ("--gpu-memory-utilization", "1.5")] {
        let (code, said) = failure(&serve(&format!("{flag} {value}")), None);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(flag) && said.contains(value), "{said}");
    }
    let (code, said) = failure(&serve("--device cuda:7"), Some(&Options::nvidia()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("error: --device cuda:7: ") && said.lines().count() == 1, "{said}");
    let (code, said) = failure(&serve("--device cuda --dtype bfloat16 --kv-cache-dtype float16"), Some(&Options::nvidia()));
    assert_eq!((code, said.lines().last()), (Some(1), Some("error: --kv-cache-dtype float16 does not go with --dtype bfloat16 on a GPU")));
}

#[test]
fn too_little_memory_is_told_with_the_flag_that_helps() {
    let card = |bytes| Options { memory_bytes: bytes, ..Options::nvidia() };
    let start =
        |flags: &str, bytes| failure(&serve(&format!("--device cuda --dtype float32 --enforce-eager {SMALL} {flags}")), Some(&card(bytes)));
    let (code, said) = start("--max-num-batched-tokens 32", 1 << 18);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("do not fit into the card's memory") || said.contains("could not be allocated"), "{said}");

    let (code, said) = start("--max-num-batched-tokens 8192", 8 << 20);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("lower --max-num-batched-tokens to less than"), "{said}");

    // 512 tokens of 3 layers, 2 heads of 32 in f32, keys and values: 768 KiB of 16 MiB, of which two percent are 328 KiB.
    let flags = "--max-num-batched-tokens 32 --max-model-len 512 --gpu-memory-utilization";
    let (code, said) = start(&format!("{flags} 0.02"), 16 << 20);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("one request of --max-model-len 512"), "{said}");
    let advised = said
        .split("raise --gpu-memory-utilization to ")
        .nth(1)
        .and_then(|rest| rest.split([',', '\n']).next())
        .unwrap_or_else(|| panic!("{said}"));
    let line = serve(&format!("--device cuda --dtype float32 --enforce-eager {SMALL} {flags} {advised}"));
    let log = Server::start(&line, Some(&card(16 << 20))).stop();
    assert!(log.contains("512 tokens; 1."), "one request of that length fits now: {log}");
}
