//! A hint server in a process of its own.

// No file of tests uses all of it.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub ready_line: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenflow-hint-server"));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts one and waits for its ready line.
    pub fn start(args: &[&str]) -> Self {
        let mut child = Self::command(args).stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready_line = String::new();
        stdout.read_line(&mut ready_line).unwrap();
        let url = ready_line.split_whitespace().find(|word| word.starts_with("http://")).expect("no ready line");
        let address = url["http://".len()..].parse().unwrap();
        Self { child, address, ready_line, _stdout: stdout }
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.open(path);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends a GET and leaves the answer to be read.
    pub fn open(&self, path: &str) -> TcpStream {
        self.send("GET", path)
    }

    /// Sends a request without a body and leaves the answer to be read.
    pub fn send(&self, method: &str, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
