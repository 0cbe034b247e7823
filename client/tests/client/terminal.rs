//! On a real terminal: a pseudo-terminal made by `script` (util-linux), its output played into an emulator.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::*;

struct Pty {
    child: Child,
    keys: ChildStdin,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Pty {
    /// Runs the client on a terminal of 24 rows and these columns; says how it ended and how it left the terminal.
    fn run(arguments: &str, columns: u16) -> Self {
        let client = env!("CARGO_BIN_EXE_tokenflow-client");
        let line = format!(
            "trap : INT; stty rows 24 cols {columns}; '{client}' {arguments}; echo \"code=$? $(stty -a | grep -oE -- '-?(echo|icanon) ' | tr -d '\\n')done\""
        );
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("TOKENFLOW_HINT_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux");
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let size = |n| NonZeroU16::new(n).unwrap();
        Self { keys: child.stdin.take().unwrap(), child, output, screen: vt100::Parser::new(size(24), size(columns), 0) }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the screen says this, and returns it.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.screen.screen().contents().contains(text) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(_) => panic!("no `{text}` on:\n{}", self.screen.screen().contents()),
            }
        }
        self.screen.screen().contents()
    }

    /// Waits for the end.
    #[track_caller]
    fn ends(mut self, code: &str) {
        let screen = self.until("done");
        assert!(screen.contains(&format!("code={code} icanon echo done")), "{screen}");
        drop(self.keys);
        self.child.wait().unwrap();
    }
}

/// The id of the one process that has this among its arguments.
fn process_with_argument(argument: &str) -> String {
    let has_argument = |id: &String| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
    };
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    ids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).find(has_argument).expect("a client with this URL")
}

fn streaming(texts: &[&str], then: Vec<Step>) -> FakeServer {
    let mut steps = vec![events()];
    for text in texts {
        steps.extend([send(chunk(text, Some((0.83, true)))), wait(20)]);
    }
    answering(steps.into_iter().chain(then).collect())
}

#[test]
fn the_status_stands_below_the_flowing_text_and_the_summary_remains() {
    let server = streaming(&["The flow ", "of tokens"], vec![wait(600), send([finish("stop"), goodbye(2)].concat())]);
    let mut pty = Pty::run(&format!("chat --url {} --hint-url none hello", server.url()), 80);
    let screen = pty.until("Health 0.83");
    assert!(screen.starts_with("The flow ") && screen.contains("\nRate "), "{screen}");
    let screen = pty.until("lowest health 0.83");
    assert!(screen.starts_with("The flow of tokens\n2 tokens in ") && !screen.contains("Rate "), "{screen}");
    pty.ends("0");
}

#[test]
fn a_conversation_keeps_its_history_and_ends_with_quit() {
    let server = streaming(&["Fine", ", thanks."], vec![send([finish("stop"), goodbye(2)].concat())]);
    let mut pty = Pty::run(&format!("chat --url {} --hint-url none", server.url()), 80);
    pty.until("> ");
    pty.press("How are you?\r");
    pty.until("2 tokens in");
    pty.press("/nonsense\r");
    pty.until("/nonsense is no command");
    pty.press("And now?\r");
    pty.until("> And now?\nFine, thanks.\n2 tokens in");
    pty.press("/quit\r");
    pty.ends("0");
    let messages = &server.asked()["messages"];
    assert_eq!(
        messages,
        &serde_json::json!([
            {"role": "user", "content": "How are you?"},
            {"role": "assistant", "content": "Fine, thanks."},
            {"role": "user", "content": "And now?"},
        ])
    );
}

#[test]
fn ctrl_c_stops_an_answer_and_the_next_one_leaves() {
    let server = streaming(&["Endless"], vec![Step::Hold]);
    let mut pty = Pty::run(&format!("chat --url {} --hint-url none", server.url()), 40);
    pty.until("> ");
    pty.press("Go\r");
    let screen = pty.until("Health 0.83");
    assert!(screen.lines().last().is_some_and(|line| line.starts_with("Rate ") && line.chars().count() < 40), "{screen}");
    pty.press("\x03");
    pty.until("stopped");
    pty.press("\x03");
    pty.ends("130");
}

#[test]
fn a_conversation_that_is_terminated_leaves_the_terminal_as_it_was() {
    let server = streaming(&[], vec![]);
    let mut pty = Pty::run(&format!("chat --url {} --hint-url none", server.url()), 80);
    pty.until("> ");
    let client = process_with_argument(&server.url());
    assert!(Command::new("kill").args(["-TERM", &client]).status().unwrap().success());
    pty.ends("143");
}

#[test]
fn watch_draws_takes_keys_and_gives_the_screen_back() {
    let snapshot = hint_event("snapshot", 0.83, &[connection(1, 1.0), connection(2, 0.25)], &[]);
    let server = FakeServer::start(vec![("GET /hint/stream ", vec![events(), send(snapshot), Step::Hold])]);
    let mut pty = Pty::run(&format!("watch --hint-url {}", server.url()), 80);
    let screen = pty.until("10.0.0.2:40001");
    assert!(screen.find("10.0.0.2:40002") < screen.find("10.0.0.2:40001"), "{screen}");
    assert!(pty.screen.screen().alternate_screen());
    pty.press("sp");
    pty.until("s sort: undelivered  p go on");
    pty.press("q");
    pty.ends("0");
}
