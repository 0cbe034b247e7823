//! Recorded traces and what they must come to. The files were recorded with `record` in a network namespace behind `tbf`; see their notes.

#[path = "common/pair.rs"]
mod pair;

use std::{
    fs::{self, File},
    io::{BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pair::Pair;
use tokenflow_hint_server::{
    peers::HostReport,
    probe::sock_diag::wire::{Message, messages},
    trace::{Replay, Score, TraceError, TraceReader, replay},
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces").join(name)
}

fn scores(path: &Path) -> (Replay, Vec<Score>) {
    let trace = TraceReader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut scores = Vec::new();
    let all = replay(trace, 220.0, |score| -> Result<(), TraceError> {
        scores.push(score.clone());
        Ok(())
    });
    (all.unwrap(), scores)
}

/// The scores of the looks in this time, milliseconds; there are some.
fn between(scores: &[Score], from: u64, to: u64) -> Vec<&Score> {
    let found: Vec<_> = scores.iter().filter(|score| (from..to).contains(&score.at_ms)).collect();
    assert!(!found.is_empty(), "no look between {from} and {to} ms");
    found
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenflow-hint-server")).args(args).output().unwrap()
}

#[test]
fn a_throttled_link_falls_within_a_second_and_recovers_within_three() {
    let (_, scores) = scores(&file("throttled.jsonl"));
    assert!(between(&scores, 0, 3000).iter().all(|score| score.health == 1.0 && score.token_rate.is_none()));
    assert!(between(&scores, 4000, 8000).iter().all(|score| score.health < 0.2 && score.terms.delay < 0.5));
    // 32 kbit/s carry 14 chunks of 220 bytes with their headers; ACKs come in lumps, so single looks lie around that.
    let mut rates: Vec<f64> = between(&scores, 4500, 8000).iter().map(|score| score.token_rate.expect("the link is the limit")).collect();
    rates.sort_by(f64::total_cmp);
    assert!((12.0..20.0).contains(&rates[rates.len() / 2]), "{rates:?}");
    assert!(between(&scores, 9000, 14_000).iter().all(|score| score.terms.queue == 1.0 && score.terms.delay > 0.9));
    assert!(between(&scores, 11_000, 14_000).iter().all(|score| score.health > 0.9 && score.token_rate.is_none()));
}

#[test]
fn a_healthy_link_is_healthy_all_the_time() {
    let (all, scores) = scores(&file("healthy.jsonl"));
    assert!(scores.iter().all(|score| score.health == 1.0 && score.token_rate.is_none()));
    assert_eq!((all.connections.len(), all.connections[0].network_limited, all.least_aggregate), (1, 0, 1.0));
}

#[test]
fn a_slow_reader_shows_in_its_queue_and_not_in_its_delay() {
    let (all, scores) = scores(&file("slow-reader.jsonl"));
    assert!(between(&scores, 0, 1900).iter().all(|score| score.health == 1.0));
    assert!(between(&scores, 4500, 10_000).iter().all(|score| score.health < 0.2 && score.token_rate.is_some()));
    assert!(all.connections[0].least_terms.delay > 0.99, "its round trips stay short: {:?}", all.connections[0].least_terms);
}

#[test]
fn a_replay_gives_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let outs = ["a", "b"].map(|name| {
        let out = folder.path().join(name);
        let output = run(&["replay", file("throttled.jsonl").to_str().unwrap(), "--json", "--out", out.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        (output.stdout, fs::read_to_string(out).unwrap())
    });
    assert_eq!(outs[0], outs[1]);
    let all: serde_json::Value = serde_json::from_slice(&outs[0].0).unwrap();
    assert_eq!(all["rounds"].as_u64(), Some(140));
    assert_eq!(outs[0].1.lines().count(), 140);
    let table = String::from_utf8(run(&["replay", file("throttled.jsonl").to_str().unwrap()]).stdout).unwrap();
    assert!(table.contains("1 connections, 140 rounds") && table.contains("68682"), "{table}");
}

#[test]
fn what_is_recorded_can_be_replayed_and_names_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new("127.0.0.1:0");
    pair.fill();
    let (cookie, port, peer) = (pair.cookie(), pair.port().to_string(), pair.peer().to_string());
    for (addresses, named) in [(&[][..], false), (&["--with-addresses"][..], true)] {
        let out = folder.path().join("trace");
        let args = ["record", "--out", out.to_str().unwrap(), "--watch-port", &port, "--probe", "sock-diag", "--for", "0.5", "--note", "n"];
        let output = run(&[&args, addresses].concat());
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().starts_with("recording to "), "the line that scripts wait for");
        assert_eq!(fs::read_to_string(&out).unwrap().contains(&peer), named);
        let (all, scores) = scores(&out);
        assert_eq!((all.connections.len(), all.connections[0].cookie), (1, cookie));
        assert!(!scores.is_empty());
    }
}

#[test]
fn a_file_that_is_no_trace_is_one_sentence() {
    let mut other = tempfile::NamedTempFile::new().unwrap();
    writeln!(other, "precious").unwrap();
    for (path, says) in [(other.path(), "not a trace"), (Path::new("/nonexistent"), "cannot open /nonexistent")] {
        let output = run(&["replay", path.to_str().unwrap()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(says) && error.trim().lines().count() == 1, "{error}");
    }
}

/// What fuzzing begins with is whole, so that it gets behind the first checks.
#[test]
fn the_fuzzers_seeds_are_read_to_their_end() {
    let seed = |name: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/fuzz/seeds").join(name)).unwrap();
    let rounds = TraceReader::new(&seed("trace/throttled")[..]).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert!(rounds.len() > 10);
    assert_eq!(HostReport::parse("a", &seed("report/one")).unwrap().connections.len(), 1);
    let mut found = Vec::new();
    messages(&seed("netlink/two_sockets"), 7, |message| found.push(message)).unwrap();
    assert!(matches!(found[..], [Message::Socket(_), Message::Socket(_), Message::Done]), "{found:?}");
}
