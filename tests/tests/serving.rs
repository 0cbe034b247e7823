//! The engine as its operator meets it: many clients, bad clients, bad models, the end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tokenflow_tests::{
    daemon, http,
    stream::{StreamOptions, TokenStream},
};

fn metric(url: &str, name: &str) -> f64 {
    let text = http::get_text(url, "/metrics").unwrap();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#')).unwrap_or_else(|| panic!("{name} is missing"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "still not after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_hundred_streams_finish_and_give_every_block_back() {
    let engine = daemon::engine(&["--hint-url", "none"]).unwrap();
    let server = http::address(&engine.url).unwrap();
    let streams: Vec<_> =
        (0..200).map(|i| TokenStream::start(server, None, StreamOptions::new(&format!("stream number {i}"), 40))).collect();
    for stream in streams {
        let (text, reason) = stream.finish().unwrap();
        assert_eq!(reason.as_deref(), Some("length"));
        assert!(!text.is_empty());
    }
    wait_until("every block is free", Duration::from_secs(5), || {
        metric(&engine.url, "vllm:num_requests_running") == 0.0 && metric(&engine.url, "vllm:kv_cache_usage_perc") == 0.0
    });
    assert_eq!(metric(&engine.url, "vllm:generation_tokens_total"), 200.0 * 40.0);
}

const DEAF_TOKENS: usize = 1900;

/// Opens requests of `prompts` streams each whose clients never read, and leaves them open.
fn deaf_clients(url: &str, count: usize, prompts: usize) -> Vec<TcpStream> {
    let address = http::address(url).unwrap();
    let prompt = vec!["fn"; prompts];
    let body = json!({"prompt": prompt, "max_tokens": DEAF_TOKENS, "ignore_eos": true, "stream": true, "logprobs": 20}).to_string();
    let open = |_| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // A small window, so that little of the output hides in the client's kernel.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        write!(
            stream,
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn clients_that_never_read_cost_bounded_memory_and_no_service() {
    const CLIENTS: usize = 8;
    const PROMPTS: usize = 4;
    // Blocks for all of them at full length, so that nobody waits for a seat; the first round touches the memory of every one.
    const BLOCKS: &str = "4000";
    for pacing in ["off", "per-connection"] {
        let engine = daemon::engine(&["--hint-url", "none", "--pacing", pacing, "--num-gpu-blocks-override", BLOCKS]).unwrap();
        let server = http::address(&engine.url).unwrap();
        let readers: Vec<_> =
            (0..CLIENTS * PROMPTS + 2).map(|_| TokenStream::start(server, None, StreamOptions::new("fn", DEAF_TOKENS))).collect();
        for reader in readers {
            reader.finish().unwrap();
        }
        let before = engine.resident_bytes().unwrap();
        let deaf = deaf_clients(&engine.url, CLIENTS, PROMPTS);
        let (_, reason) = TokenStream::start(server, None, StreamOptions::new("a client that reads", 400)).finish().unwrap();
        assert_eq!(reason.as_deref(), Some("length"));
        // Until nobody can run any more: what is bounded has reached its bound.
        let generated = || metric(&engine.url, "vllm:generation_tokens_total");
        wait_until("every deaf client's streams stand still", Duration::from_secs(60), || {
            let before = generated();
            std::thread::sleep(Duration::from_millis(500));
            generated() == before
        });
        let unfinished = metric(&engine.url, "vllm:num_requests_running") + metric(&engine.url, "vllm:num_requests_waiting");
        assert_eq!(unfinished, (CLIENTS * PROMPTS) as f64, "{pacing}: whole outputs fitted into buffers, so nothing was bounded");
        let grown = engine.resident_bytes().unwrap().saturating_sub(before);
        // A token waits as about 900 bytes here and weighs about 2 KB on the wire: unbounded it would be 55 MB.
        assert!(grown < 28 << 20, "{pacing}: {CLIENTS} deaf clients cost {} MiB", grown >> 20);
        drop(deaf);
        wait_until("the deaf clients' requests are cancelled", Duration::from_secs(10), || {
            metric(&engine.url, "vllm:num_requests_running") == 0.0 && metric(&engine.url, "vllm:kv_cache_usage_perc") == 0.0
        });
        assert!(metric(&engine.url, "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\"") >= unfinished);
    }
}

#[test]
fn a_client_that_leaves_is_cancelled() {
    let engine = daemon::engine(&["--hint-url", "none", "--max-stream-rate", "20"]).unwrap();
    let deaf = deaf_clients(&engine.url, 3, 1);
    wait_until("the requests run", Duration::from_secs(10), || metric(&engine.url, "vllm:num_requests_running") == 3.0);
    drop(deaf);
    wait_until("they are gone", Duration::from_secs(5), || metric(&engine.url, "vllm:num_requests_running") == 0.0);
    assert_eq!(metric(&engine.url, "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\""), 3.0);
}

#[test]
fn sigterm_drains_running_streams_and_refuses_new_ones() {
    let mut engine = daemon::engine(&["--hint-url", "none", "--max-stream-rate", "100"]).unwrap();
    let server = http::address(&engine.url).unwrap();
    let stream = TokenStream::start(server, None, StreamOptions::new("finish me", 200));
    wait_until("it streams", Duration::from_secs(10), || stream.arrivals().len() > 5);
    engine.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    assert!(TcpStream::connect(server).is_err(), "no new connection is taken");
    let (_, reason) = stream.finish().unwrap();
    assert_eq!(reason.as_deref(), Some("length"), "the running stream ends as it should");
    assert!(engine.wait(Duration::from_secs(5)).unwrap().success());
}

#[test]
fn the_drain_is_bounded_and_a_cut_stream_says_why() {
    let mut engine = daemon::engine(&["--hint-url", "none", "--max-stream-rate", "5", "--shutdown-timeout", "1"]).unwrap();
    let server = http::address(&engine.url).unwrap();
    let stream = TokenStream::start(server, None, StreamOptions::new("too long to finish", 500));
    wait_until("it streams", Duration::from_secs(10), || stream.arrivals().len() > 2);
    engine.signal(libc::SIGTERM);
    let error = stream.finish().expect_err("it cannot finish").to_string();
    assert!(error.contains("stopping"), "{error}");
    assert!(engine.wait(Duration::from_secs(5)).unwrap().success());
}

/// Runs `serve` that must refuse to start: exit code 1 and one sentence.
fn refused(folder: &Path, expected: &str) {
    let mut command = Command::new(daemon::binary("tokenflow-engine").unwrap());
    let output = command.args(["serve", "--port", "0", "--hint-url", "none"]).arg(folder).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: ") && error.contains(expected), "expected '{expected}' in: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn broken_models_are_refused_with_one_sentence() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/fixtures/qwen3");
    let copy = || {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&fixture).unwrap().flatten().filter(|e| e.path().is_file()) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        folder
    };
    refused(Path::new("/nonexistent/model"), "/nonexistent/model");

    let folder = copy();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    refused(folder.path(), "config.json");

    let folder = copy();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    std::fs::write(folder.path().join("config.json"), config.replace("Qwen3ForCausalLM", "NobodyForCausalLM")).unwrap();
    refused(folder.path(), "NobodyForCausalLM");
    refused(folder.path(), "LlamaForCausalLM");

    let folder = copy();
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    refused(folder.path(), "model.safetensors");

    let mut corrupt = bytes.clone();
    corrupt[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&weights, corrupt).unwrap();
    refused(folder.path(), "model.safetensors");

    let folder = copy();
    std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
    refused(folder.path(), "tokenizer.json");
}

#[test]
fn malformed_bytes_do_not_bring_the_server_down() {
    let engine = daemon::engine(&["--hint-url", "none"]).unwrap();
    let address = http::address(&engine.url).unwrap();
    for garbage in
        [&b"\x16\x03\x01\x00\xa5\x01\x00"[..], b"GET\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{"]
    {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(garbage).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(http::send(address, "GET", "/health", None).unwrap().status, 200);
}
