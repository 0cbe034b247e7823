//! The program itself, with an emulated card or without any.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Output, Stdio},
    thread,
};

use serde_json::Value;
use tokenflow_gpu_emulator::{Options, library_folder};

/// Words that serve a tiny model which has a tokenizer.
pub fn serve(flags: &str) -> String {
    format!("serve {}/fixtures/qwen3 {flags}", env!("CARGO_MANIFEST_DIR"))
}

/// `tokenflow-engine` with the words of `line`, in sight of the emulated card where there is one.
fn engine(line: &str, card: Option<&Options>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenflow-engine"));
    command.args(line.split_whitespace()).stdin(Stdio::null()).env_remove("RUST_LOG").env("TOKENFLOW_HINT_URL", "none");
    command.env("TOKENFLOW_CACHE", env!("CARGO_TARGET_TMPDIR"));
    match card {
        Some(options) => {
            let (name, value) = options.environment();
            command.env("LD_LIBRARY_PATH", library_folder(options)).env(name, value);
        }
        // A real one is not in sight either.
        None => {
            command.env("CUDA_VISIBLE_DEVICES", "").env("HIP_VISIBLE_DEVICES", "").env_remove("LD_LIBRARY_PATH");
        }
    }
    command
}

/// What a start that fails says, and how it ends.
pub fn failure(line: &str, card: Option<&Options>) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = engine(line, card).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A server that ends with this.
pub struct Server {
    child: Child,
    url: String,
    log: Option<thread::JoinHandle<String>>,
}

impl Server {
    pub fn start(line: &str, card: Option<&Options>) -> Self {
        let mut child = engine(line, card).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let log = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        let mut server = Self { child, url: String::new(), log: Some(log) };
        match ready.trim().rsplit_once(" on ") {
            Some((_, url)) => server.url = url.to_owned(),
            None => panic!("no server: {ready:?}, {}", server.stop()),
        }
        server
    }

    pub fn post(&self, route: &str, body: &Value) -> Value {
        let answer = ureq::post(format!("{}{route}", self.url)).content_type("application/json").send(body.to_string());
        let text = answer.unwrap_or_else(|e| panic!("{route}: {e}")).body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn metrics(&self) -> String {
        ureq::get(format!("{}/metrics", self.url)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// What was said on standard error up to the end.
    pub fn stop(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.take().map(|log| log.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
