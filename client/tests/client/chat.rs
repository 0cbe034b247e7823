//! `tokenflow-client chat` as a script sees it: the binary against a server that plays an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::common::*;
use serde_json::{Value, json as value};

fn ok(text: &str) -> Vec<Step> {
    vec![events(), send(format!("{}{}{}", chunk(text, None), finish("stop"), goodbye(1)))]
}

#[test]
fn an_answer_goes_to_stdout_and_its_summary_to_stderr() {
    let answer = [chunk("", Some((1.0, false))), chunk("Streams ", Some((0.9, false))), chunk("flow.", Some((0.4, true)))].concat();
    let server = answering(vec![events(), send(answer), send(finish("stop")), send(goodbye(2))]);
    let output = chat(&server, &["--max-tokens", "9", "--temperature", "0.5", "--system", "Be brief"]);
    assert_eq!(stdout(&output), "Streams flow.\n");
    assert!(stderr(&output).starts_with("2 tokens in ") && stderr(&output).ends_with("lowest health 0.40\n"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        server.asked(),
        value!({
            "model": "demo",
            "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Tell me"}],
            "stream": true,
            "stream_options": {"include_usage": true, "continuous_usage_stats": true, "include_health": true},
            "max_tokens": 9,
            "temperature": 0.5,
        })
    );
}

#[test]
fn a_prompt_can_come_from_standard_input_and_a_key_is_sent() {
    let server = answering(ok("yes"));
    let mut child = client(&["chat", "--url", &server.url(), "--hint-url", "none", "--model", "other", "--api-key", "sesame"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"two\nlines\n").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), "yes\n");
    assert_eq!((&server.asked()["model"], &server.asked()["messages"][0]["content"]), (&value!("other"), &value!("two\nlines\n")));
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 1, "a named model is not looked up");
    assert!(requests[0].to_ascii_lowercase().contains("authorization: bearer sesame"));
}

#[test]
fn characters_and_events_may_be_cut_anywhere() {
    let bytes = [chunk("größe 漢🦀", None), finish("stop"), goodbye(1)].concat().into_bytes();
    let mut steps = vec![events()];
    for piece in bytes.chunks(7) {
        steps.extend([Step::Send(piece.to_vec()), wait(1)]);
    }
    assert_eq!(stdout(&chat(&answering(steps), &[])), "größe 漢🦀\n");
}

#[test]
fn json_mode_gives_an_object_per_chunk_and_a_summary() {
    let mut steps = vec![events(), send(chunk("", Some((1.0, false))))];
    for i in 0..5 {
        steps.extend([wait(30), send(chunk(&format!("t{i} "), Some((0.5, true))))]);
    }
    steps.push(send([finish("length"), goodbye(5)].concat()));
    let output = chat(&answering(steps), &["--json"]);
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[2]["text"], "t2 ");
    assert_eq!((&lines[2]["health"], &lines[2]["paced"], &lines[2]["tokens"]), (&value!(0.5), &value!(true), &value!(3)));
    assert!(lines.windows(2).take(4).all(|pair| pair[0]["t"].as_f64() < pair[1]["t"].as_f64()));
    let rate = lines[4]["rate"].as_f64().unwrap();
    assert!(rate > 0.0 && rate < 40.0, "as received, not the 9999 that the server says: {rate}");
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&lines[0]), "t text tokens rate health paced");
    let summary = &lines[5]["summary"];
    assert_eq!(keys(summary), "tokens seconds ttft mean_rate min_health finish_reason usage error");
    assert_eq!(summary["usage"], value!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 9}));
    assert_eq!(summary["ttft"], lines[0]["t"]);
    assert_eq!(
        (&summary["tokens"], &summary["finish_reason"], &summary["min_health"], &summary["error"]),
        (&value!(5), &value!("length"), &value!(0.5), &Value::Null)
    );
}

#[test]
fn json_mode_counts_the_tokens_of_a_chunk_and_shows_reasoning_apart() {
    let counted = |delta: Value, tokens: u64| {
        let usage = value!({"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens});
        send(format!("data: {}\n\n", value!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": usage})))
    };
    let steps = vec![
        events(),
        counted(value!({"role": "assistant", "content": ""}), 0),
        counted(value!({"reasoning": "Let me", "reasoning_content": "Let me"}), 2),
        counted(value!({"content": "Four tokens at once"}), 6),
        send([finish("stop"), goodbye(6)].concat()),
    ];
    let output = chat(&answering(steps), &["--json"]);
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines.iter().map(|line| (line["reasoning"].as_str(), line["text"].as_str(), line["tokens"].as_u64())).collect();
    assert_eq!(seen, [(Some("Let me"), Some(""), Some(2)), (None, Some("Four tokens at once"), Some(6)), (None, None, None)]);
    assert_eq!(lines[2]["summary"]["tokens"], 6);
}

#[test]
fn a_slow_answer_has_its_status_on_stderr_meanwhile() {
    let steps = vec![
        events(),
        send(chunk("a", Some((0.7, true)))),
        wait(600),
        send(chunk("b", Some((0.7, true)))),
        wait(900),
        send(finish("stop")),
    ];
    let output = chat(&answering(steps), &["--plain"]);
    let first = stderr(&output).lines().next().unwrap();
    assert!(first.starts_with("rate ") && first.contains("tok/s, health 0.70, paced, 2 tokens, 1."), "{first}");
    assert_eq!(stdout(&output), "ab\n");
}

#[test]
fn health_comes_from_the_hint_server_where_the_server_sends_none() {
    let hints = FakeServer::start(vec![("GET /hint/stream ", vec![events(), send(hint_event("snapshot", 0.42, &[], &[])), Step::Hold])]);
    let mut steps = vec![events()];
    for _ in 0..20 {
        steps.extend([send(chunk("x", None)), wait(25)]);
    }
    steps.push(send([finish("stop"), goodbye(20)].concat()));
    let server = answering(steps);
    let output = client(&["chat", "--url", &server.url(), "--hint-url", &hints.url(), "--json", "hi"]).output().unwrap();
    let last: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    assert_eq!((&last["summary"]["min_health"], &last["summary"]["tokens"]), (&value!(0.42), &value!(20)));
}

#[track_caller]
fn fails(output: &std::process::Output, text: &str, sentence: &str) {
    assert_eq!(stdout(output), text);
    let last = stderr(output).lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(sentence), "{last}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_refused_connection_names_the_url() {
    let output = client(&["chat", "--url", "http://127.0.0.1:9", "--model", "m", "hi"]).output().unwrap();
    fails(&output, "", "cannot reach http://127.0.0.1:9/v1/chat/completions: connection refused");
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn the_servers_own_sentence_is_shown() {
    let body =
        r#"{"error":{"message":"The model `x` does not exist. Valid aliases: demo.","type":"NotFoundError","param":"model","code":404}}"#;
    fails(
        &chat(&answering(vec![json("404 Not Found", body)]), &[]),
        "",
        "answered 404: The model `x` does not exist. Valid aliases: demo.",
    );
}

#[test]
fn no_models_is_an_error() {
    let server = FakeServer::start(vec![("GET /v1/models ", vec![json("200 OK", r#"{"data":[]}"#)])]);
    fails(&chat(&server, &[]), "", "lists no model");
}

#[test]
fn an_answer_without_a_finish_reason_is_incomplete() {
    let steps = vec![events(), send(chunk("half an ans", None))];
    fails(&chat(&answering(steps), &[]), "half an ans\n", "ended after 1 token without a finish reason");
    let steps = vec![events(), send(chunk("half", None)), send("data: [DONE]\n\n")];
    fails(&chat(&answering(steps), &[]), "half\n", "without a finish reason");
}

#[test]
fn a_connection_that_breaks_is_said_to_break() {
    let event = chunk("half", None);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let steps = vec![send(format!("{head}{:x}\r\n{event}\r\n", event.len()))];
    fails(&chat(&answering(steps), &[]), "half\n", "the connection broke after 1 token");
}

#[test]
fn an_error_within_the_stream_comes_after_the_text_before_it() {
    let error = "data: {\"error\":{\"message\":\"the KV cache is gone\",\"type\":\"InternalServerError\",\"code\":500}}\n\n";
    let steps = vec![events(), send(chunk("some", None) + error), send("data: [DONE]\n\n")];
    fails(&chat(&answering(steps), &[]), "some\n", "the KV cache is gone");
}

#[test]
fn what_is_no_stream_is_named() {
    fails(&chat(&answering(vec![json("200 OK", r#"{"choices":[]}"#)]), &[]), "", "not an event stream");
    fails(&chat(&answering(vec![events(), send("data: {oops\n\n")]), &[]), "", "not a chat chunk");
}

#[test]
fn an_empty_prompt_is_refused_before_anything_is_sent() {
    let output = client(&["chat", "--url", "http://127.0.0.1:9"]).output().unwrap();
    fails(&output, "", "the prompt is empty");
}

#[test]
fn ctrl_c_ends_with_130_and_the_summary() {
    let server = answering(vec![events(), send(chunk("endless\n", None)), Step::Hold]);
    let mut child = client(&["chat", "--url", &server.url(), "--hint-url", "none", "hi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), line.as_str()), (Some(130), "endless\n"));
    assert!(said.ends_with("stopped\n"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    // More than a pipe holds, so that the client still writes when nobody reads.
    let line = format!("{}\n", "x".repeat(200));
    let lines = (0..2000).map(|_| send(chunk(&line, None)));
    let server = answering([events()].into_iter().chain(lines).chain([Step::Hold]).collect());
    for mode in ["--plain", "--json"] {
        let mut child = client(&["chat", "--url", &server.url(), "--hint-url", "none", mode, "hi"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{mode}");
    }
}
