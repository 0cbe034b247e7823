//! A test in a process of its own.

use std::process::{Command, Output};

const VARIABLE: &str = "TOKENFLOW_TEST_ALONE";

/// What became of `test`, which is the body of the test of this name; [`None`] in the process in which it has just run.
fn run(name: &str, test: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(VARIABLE).is_some() {
        test();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    Some(command.args(["--exact", name, "--nocapture"]).env(VARIABLE, "1").output().expect("it starts"))
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `test` must go well.
pub fn alone(name: &str, test: impl FnOnce()) {
    if let Some(output) = run(name, test) {
        assert!(output.status.success(), "{}", told(&output));
        assert!(told(&output).contains("1 passed"), "no test is called {name}");
    }
}

/// `test` must be stopped, with these words.
pub fn aborts(name: &str, words: &str, test: impl FnOnce()) {
    if let Some(output) = run(name, test) {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", told(&output));
        assert!(told(&output).contains(words), "{}", told(&output));
    }
}
