//! `<tool_call>{"name": "f", "arguments": {...}}</tool_call>`, as Hermes and Qwen write calls.

use super::{
    Pieces, ToolParser,
    call_object::{CallObject, CallStep},
    marker::Marker,
};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

pub(super) struct Hermes(State);

enum State {
    Text(Marker),
    /// Behind the opening tag; with the white space before the call.
    Opened(String),
    Call(String, Box<CallObject>),
    /// Behind a complete call; with what may be the closing tag.
    Closing(String),
}

impl Hermes {
    pub(super) fn new() -> Self {
        Self(State::text())
    }
}

impl State {
    fn text() -> Self {
        Self::Text(Marker::new(OPEN))
    }
}

impl ToolParser for Hermes {
    fn push(&mut self, c: char, out: &mut Pieces) {
        match &mut self.0 {
            State::Text(marker) => {
                if marker.push(c, |c| out.content(c)) {
                    self.0 = State::Opened(OPEN.to_owned());
                }
            }
            State::Opened(raw) if c.is_ascii_whitespace() => raw.push(c),
            State::Opened(raw) if c == '{' => {
                let mut call = Box::new(CallObject::new());
                call.push(c, out);
                self.0 = State::Call(std::mem::take(raw), call);
            }
            State::Opened(raw) => {
                out.content_str(raw);
                self.0 = State::text();
                self.push(c, out);
            }
            State::Call(before, call) => match call.push(c, out) {
                CallStep::Inside => {}
                CallStep::Complete => self.0 = State::Closing(String::new()),
                CallStep::Bad => {
                    out.not_a_call(before, call);
                    self.0 = State::text();
                    self.push(c, out);
                }
            },
            State::Closing(held) => {
                held.push(c);
                let tag = held.trim_start();
                if tag == CLOSE {
                    self.0 = State::text();
                } else if !CLOSE.starts_with(tag) {
                    // A call whose tag was left out is a call all the same.
                    let held = std::mem::take(held);
                    self.0 = State::text();
                    held.chars().for_each(|c| self.push(c, out));
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Pieces) {
        match std::mem::replace(&mut self.0, State::text()) {
            State::Text(mut marker) => out.content_str(&marker.take_held()),
            State::Opened(raw) => out.content_str(&raw),
            State::Call(before, call) => out.not_a_call(&before, &call),
            State::Closing(_) => {}
        }
    }
}
