//! `tokenflow-client watch` as a script sees it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::common::*;

fn hint_server(steps: Vec<Step>) -> FakeServer {
    FakeServer::start(vec![("GET /hint/stream ", steps)])
}

#[test]
fn once_prints_a_table_of_everything_the_most_troubled_first() {
    let snapshot = hint_event("snapshot", 0.83, &[connection(1, 1.0), connection(2, 0.25)], &[]);
    let server = hint_server(vec![events(), send(snapshot), Step::Hold]);
    // Standard output is no terminal here: the same with and without --once.
    for arguments in [&["--once"][..], &[]] {
        let output = client(&["watch", "--hint-url", &server.url()]).args(arguments).output().unwrap();
        let lines: Vec<&str> = stdout(&output).lines().collect();
        assert_eq!(lines[0], "Health 0.83 ████████░░  probe ebpf  2 connections, 1 active");
        assert!(lines[1].starts_with("peer ") && lines[1].ends_with("age"), "{}", lines[1]);
        assert!(lines[2].starts_with("10.0.0.2:40002") && lines[2].contains("0.25") && lines[2].contains("48.2 ms"), "{}", lines[2]);
        assert!(lines[3].starts_with("10.0.0.2:40001"));
        assert_eq!((lines.len(), output.status.code()), (4, Some(0)));
    }
}

#[test]
fn json_follows_the_events_through_a_loss_of_the_server() {
    let server = hint_server(vec![
        events(),
        send(hint_event("snapshot", 1.0, &[connection(1, 1.0)], &[])),
        send(": keep-alive\n\n"),
        send(hint_event("change", 0.5, &[], &[1])),
    ]);
    let mut child =
        client(&["watch", "--json", "--hint-url", &server.url()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        (event["event"].as_str().unwrap().to_owned(), event["changed"].as_array().unwrap().len(), event["removed"].to_string())
    });
    // The script ends after the change, and is played again to whoever comes back.
    for _ in 0..2 {
        assert_eq!(lines.next().unwrap(), ("snapshot".to_owned(), 1, "[]".to_owned()));
        assert_eq!(lines.next().unwrap(), ("change".to_owned(), 0, "[1]".to_owned()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("is gone"), "{said}");
}

#[test]
fn once_with_json_is_one_object() {
    let server = hint_server(vec![events(), send(hint_event("snapshot", 1.0, &[connection(1, 1.0)], &[])), Step::Hold]);
    let output = client(&["watch", "--json", "--once", "--hint-url", &server.url()]).output().unwrap();
    let event: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(event["changed"][0]["peer"], "10.0.0.2:40001");
}

#[test]
fn a_unix_socket_serves_as_well() {
    let path = std::env::temp_dir().join(format!("tokenflow-client-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let playing = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n").unwrap();
        stream.write_all(hint_event("snapshot", 0.5, &[], &[]).as_bytes()).unwrap();
        while matches!(stream.read(&mut head), Ok(1..)) {}
    });
    let output = client(&["watch", "--hint-url", &format!("unix:{}", path.display())]).output().unwrap();
    playing.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(stdout(&output).starts_with("Health 0.50"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn no_server_is_one_sentence() {
    for (url, sentence) in [
        ("http://127.0.0.1:9", "error: cannot reach the hint server at http://127.0.0.1:9: connection refused"),
        ("unix:/nonexistent/socket", "error: cannot reach the hint server at unix:/nonexistent/socket: no such socket file"),
        ("none", "error: there is nothing to watch"),
    ] {
        let output = client(&["watch", "--hint-url", url]).output().unwrap();
        assert!(stderr(&output).starts_with(sentence) && stderr(&output).lines().count() == 1, "{}", stderr(&output));
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    }
}
