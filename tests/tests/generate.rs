//! `tokenflow-engine generate`: a file of requests, answered without a server, however often it is cut short.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokenflow_tests::{daemon, http};

fn command(input: &Path, output: &Path) -> Command {
    let mut command = Command::new(daemon::binary("tokenflow-engine").unwrap());
    command.args(["generate", "--max-model-len", "512", "--max-num-seqs", "4", "--input"]).arg(input).arg("--output").arg(output);
    daemon::end_with_parent(&mut command);
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn records(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(output).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn wait(child: &mut Child) -> Option<i32> {
    child.wait().unwrap().code()
}

fn request(i: usize) -> Value {
    json!({"prompt": format!("Number {i}: what is"), "max_tokens": 40, "temperature": 0, "ignore_eos": true})
}

#[test]
fn a_batch_that_is_killed_and_interrupted_answers_every_line_once_and_as_the_server_does() {
    const LINES: usize = 120;
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let lines: String = (0..LINES)
        .map(|i| json!({"custom_id": format!("q{i}"), "method": "POST", "url": "/v1/completions", "body": request(i)}).to_string() + "\n")
        .collect();
    std::fs::write(&input, lines).unwrap();

    // Killed without a word, then interrupted from the keyboard, each after it has answered something.
    for (signal, code) in [(libc::SIGKILL, None), (libc::SIGINT, Some(130))] {
        let before = records(&output).len();
        let mut child = command(&input, &output).spawn().unwrap();
        let began = Instant::now();
        while records(&output).len() < before + 8 {
            assert!(began.elapsed() < Duration::from_secs(300), "no answers");
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: kill(2) on our own child, which has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        assert_eq!(wait(&mut child), code, "signal {signal}");
    }
    let cut_short: Value = serde_json::from_slice(&std::fs::read(output.with_extension("summary.json")).unwrap()).unwrap();
    assert_eq!(cut_short["interrupted"], true);
    let before = records(&output).len();
    assert!(before < LINES, "it was too fast to interrupt");

    assert_eq!(wait(&mut command(&input, &output).spawn().unwrap()), Some(0));
    let summary: Value = serde_json::from_slice(&std::fs::read(output.with_extension("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["answered_before"], before);
    assert_eq!(summary["answered"], LINES - before);
    assert_eq!((&summary["failed"], &summary["interrupted"]), (&json!(0), &json!(false)));
    assert_eq!(summary["completion_tokens"], (LINES - before) * 40);

    let all = records(&output);
    assert_eq!(all.len(), LINES);
    let answers: BTreeMap<_, _> = all.iter().map(|r| (r["custom_id"].as_str().unwrap(), &r["response"])).collect();
    assert_eq!(answers.len(), LINES, "an id stands twice");
    let engine = daemon::engine(&["--hint-url", "none"]).unwrap();
    for i in [0, LINES / 2, LINES - 1] {
        let (_, answer) = http::post_json(&engine.url, "/v1/completions", &request(i)).unwrap();
        let response = answers[format!("q{i}").as_str()];
        assert_eq!(response["status_code"], 200);
        assert_eq!(response["body"]["choices"][0]["text"], answer["choices"][0]["text"]);
    }
}

#[test]
fn bad_lines_are_answered_with_what_is_wrong_and_do_not_stop_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    std::fs::write(&input, "{\"prompt\": \"x\", \"max_tokens\": 2}\nnot json\n\n{\"prompt\": \"x\", \"temperature\": -1}\n").unwrap();
    assert_eq!(wait(&mut command(&input, &output).spawn().unwrap()), Some(1));
    let by_id: BTreeMap<_, _> = records(&output).into_iter().map(|r| (r["custom_id"].as_str().unwrap().to_owned(), r)).collect();
    assert_eq!(by_id["line-1"]["response"]["status_code"], 200);
    assert!(by_id["line-2"]["error"]["message"].as_str().unwrap().starts_with("line 2 is not JSON"), "{:?}", by_id["line-2"]);
    assert_eq!(by_id["line-4"]["response"]["body"]["error"]["param"], "temperature");
    assert_eq!(by_id.len(), 3);
}
