//! `[TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]`, or `[TOOL_CALLS]f{...}` and `[TOOL_CALLS]f[ARGS]{...}` as newer Mistral models write calls.

use super::{
    Pieces, ToolParser,
    call_list::CallList,
    call_object::CallStep,
    json::{JsonScanner, Step},
    marker::Marker,
};

const TOOL_CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

pub(super) struct Mistral(State);

enum State {
    Text(Marker),
    /// Behind the marker: what was read of a name.
    Name(String),
    List(CallList),
    Arguments {
        raw: String,
        scanner: JsonScanner,
    },
    /// Behind a list.
    Rest,
}

impl Mistral {
    pub(super) fn new() -> Self {
        Self(State::text())
    }
}

impl State {
    fn text() -> Self {
        Self::Text(Marker::new(TOOL_CALLS))
    }
}

impl ToolParser for Mistral {
    fn push(&mut self, c: char, out: &mut Pieces) {
        match &mut self.0 {
            State::Text(marker) => {
                if marker.push(c, |c| out.content(c)) {
                    self.0 = State::Name(String::new());
                }
            }
            State::Name(raw) if c == '[' && raw.trim().is_empty() => {
                let mut calls = CallList::in_brackets();
                calls.push(c, out);
                self.0 = State::List(calls);
            }
            State::Name(raw) if c == '{' && name(raw).is_some() => {
                let mut scanner = JsonScanner::new();
                scanner.push(c);
                out.start(name(raw).unwrap_or_default());
                out.arguments(c);
                self.0 = State::Arguments { raw: format!("{TOOL_CALLS}{raw}{c}"), scanner };
            }
            State::Name(raw) if may_become_name(raw, c) => raw.push(c),
            State::Name(_) => {
                self.finish(out);
                self.push(c, out);
            }
            State::List(calls) => match calls.push(c, out) {
                CallStep::Inside => {}
                CallStep::Complete => self.0 = State::Rest,
                CallStep::Bad => {
                    self.finish(out);
                    self.push(c, out);
                }
            },
            State::Arguments { raw, scanner } => match scanner.push(c) {
                Step::Bad => {
                    self.finish(out);
                    self.push(c, out);
                }
                step => {
                    raw.push(c);
                    out.arguments(c);
                    if step == Step::End {
                        out.end();
                        self.0 = State::text();
                    }
                }
            },
            State::Rest => out.content(c),
        }
    }

    fn finish(&mut self, out: &mut Pieces) {
        match std::mem::replace(&mut self.0, State::text()) {
            State::Text(mut marker) => out.content_str(&marker.take_held()),
            State::Name(raw) => out.content_str(&format!("{TOOL_CALLS}{raw}")),
            State::List(calls) => calls.give_up(TOOL_CALLS, out),
            State::Arguments { raw, .. } => out.abandon(raw),
            State::Rest => {}
        }
    }
}

/// The function's name in what stands between the marker and the arguments.
fn name(raw: &str) -> Option<&str> {
    let raw = raw.trim();
    let raw = raw.strip_suffix(ARGS).unwrap_or(raw);
    let name = raw.split_once(CALL_ID).map_or(raw, |(name, _)| name).trim();
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Whether a name, a call's id and the mark of the arguments can still follow one another so.
fn may_become_name(raw: &str, c: char) -> bool {
    const LONGEST: usize = 256;
    raw.len() < LONGEST && (is_name(c) || c.is_ascii_whitespace() || matches!(c, '[' | ']'))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_stand_before_ids_and_arguments() {
        for raw in ["f", " f ", "f[ARGS]", "f[CALL_ID]abc123XYZ[ARGS]", "f [ARGS]"] {
            assert_eq!(name(raw), Some("f"), "{raw}");
        }
        for raw in ["", "[ARGS]", "two words", "f]"] {
            assert_eq!(name(raw), None, "{raw}");
        }
    }
}
