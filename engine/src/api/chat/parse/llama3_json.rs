//! `{"name": "f", "parameters": {...}}; {...}` as the whole of the answer, behind `<|python_tag|>` or not, as Llama 3 writes calls.

use super::{Pieces, ToolParser, call_list::CallList, call_object::CallStep};

const PYTHON_TAG: &str = "<|python_tag|>";

pub(super) struct Llama3Json(State);

enum State {
    /// Nothing but white space and what may be the tag.
    Start(String),
    Calls(String, CallList),
    Text,
}

impl Llama3Json {
    pub(super) fn new() -> Self {
        Self(State::Start(String::new()))
    }
}

impl ToolParser for Llama3Json {
    fn push(&mut self, c: char, out: &mut Pieces) {
        match &mut self.0 {
            State::Start(raw) => {
                let seen = raw.trim_start();
                if c == '{' && (seen.is_empty() || seen.trim_end() == PYTHON_TAG) {
                    let mut calls = CallList::with_semicolons();
                    calls.push(c, out);
                    self.0 = State::Calls(std::mem::take(raw), calls);
                    return;
                }
                raw.push(c);
                let seen = raw.trim_start();
                let may_be_tag = PYTHON_TAG.starts_with(seen) || seen.trim_end() == PYTHON_TAG;
                if !may_be_tag {
                    out.content_str(raw);
                    self.0 = State::Text;
                }
            }
            State::Calls(before, calls) => {
                let step = calls.push(c, out);
                // The tag belongs to the first call only.
                if calls.may_end() {
                    before.clear();
                }
                if step == CallStep::Bad {
                    self.finish(out);
                    out.content(c);
                }
            }
            State::Text => out.content(c),
        }
    }

    fn finish(&mut self, out: &mut Pieces) {
        match std::mem::replace(&mut self.0, State::Text) {
            State::Start(raw) => out.content_str(&raw),
            State::Calls(_, calls) if calls.may_end() => {}
            State::Calls(before, calls) => calls.give_up(&before, out),
            State::Text => {}
        }
    }
}
