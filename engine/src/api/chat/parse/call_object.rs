//! One call as most models write it, `{"name": "f", "arguments": {...}}`, read as it arrives.

use super::{
    Pieces,
    json::{JsonScanner, State, Step},
};

/// What one more character did to a call or a list of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStep {
    Inside,
    /// It was the last character, and all that was needed has come.
    Complete,
    /// This is no call; the character was not taken.
    Bad,
}

/// Passes the name on when it is complete, then the arguments' text as it comes. `parameters` is Llama's name for `arguments`.
pub(super) struct CallObject {
    scanner: JsonScanner,
    raw: String,
    /// Where the key or value that is being read begins in `raw`.
    token_start: usize,
    field: Field,
    name: Option<String>,
    arguments: Arguments,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

enum Arguments {
    Unseen,
    /// They came before the name.
    Held(String),
    Passing,
    Passed,
}

impl CallObject {
    /// Before the opening bracket.
    pub(super) fn new() -> Self {
        Self {
            scanner: JsonScanner::new(),
            raw: String::new(),
            token_start: 0,
            field: Field::Other,
            name: None,
            arguments: Arguments::Unseen,
        }
    }

    /// All characters taken so far.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// Whether the call's name has been passed on, after which it can only be abandoned.
    pub(super) fn has_started(&self) -> bool {
        matches!(self.arguments, Arguments::Passing | Arguments::Passed)
    }

    pub(super) fn push(&mut self, c: char, out: &mut Pieces) -> CallStep {
        let (depth, state) = (self.scanner.depth(), self.scanner.state());
        // A call is an object.
        if depth == 0 && c != '{' {
            return CallStep::Bad;
        }
        let step = self.scanner.push(c);
        if step == Step::Bad {
            return CallStep::Bad;
        }
        let start = self.raw.len();
        self.raw.push(c);
        if matches!(self.arguments, Arguments::Passing) {
            out.arguments(c);
            if self.scanner.depth() == 1 {
                self.arguments = Arguments::Passed;
            }
            return CallStep::Inside;
        }
        let is_good = match (depth, state) {
            (1, State::Key | State::FirstKey) if c == '"' => {
                self.token_start = start;
                true
            }
            (1, State::String { is_key: true }) if c == '"' => self.key_ended(),
            (1, State::Value) if !c.is_ascii_whitespace() => self.value_began(start, c, out),
            (1, State::String { is_key: false }) if c == '"' => self.value_ended(),
            (2, _) if self.scanner.depth() == 1 => self.value_ended(),
            _ => true,
        };
        let step = match step {
            _ if !is_good => CallStep::Bad,
            Step::End => self.ended(out),
            _ => CallStep::Inside,
        };
        if step == CallStep::Bad {
            self.raw.pop();
        }
        step
    }

    fn key_ended(&mut self) -> bool {
        let key: Option<String> = serde_json::from_str(&self.raw[self.token_start..]).ok();
        self.field = match key.as_deref() {
            Some("name") if self.name.is_none() => Field::Name,
            Some("arguments" | "parameters") if matches!(self.arguments, Arguments::Unseen) => Field::Arguments,
            _ => Field::Other,
        };
        true
    }

    fn value_began(&mut self, start: usize, c: char, out: &mut Pieces) -> bool {
        self.token_start = start;
        match (self.field, &self.name) {
            (Field::Name, _) => c == '"',
            (Field::Arguments, Some(name)) if c == '{' => {
                out.start(name);
                out.arguments(c);
                self.arguments = Arguments::Passing;
                true
            }
            (Field::Arguments, _) => c == '{',
            (Field::Other, _) => true,
        }
    }

    fn value_ended(&mut self) -> bool {
        let value = &self.raw[self.token_start..];
        match self.field {
            Field::Name => self.name = serde_json::from_str(value).ok().filter(|name: &String| !name.is_empty()),
            Field::Arguments => self.arguments = Arguments::Held(value.to_owned()),
            Field::Other => return true,
        }
        let is_good = self.field != Field::Name || self.name.is_some();
        self.field = Field::Other;
        is_good
    }

    fn ended(&mut self, out: &mut Pieces) -> CallStep {
        match (&self.name, std::mem::replace(&mut self.arguments, Arguments::Passed)) {
            (Some(name), Arguments::Held(arguments)) => {
                out.start(name);
                arguments.chars().for_each(|c| out.arguments(c));
            }
            (Some(_), Arguments::Passed) => {}
            (_, seen) => {
                self.arguments = seen;
                return CallStep::Bad;
            }
        }
        out.end();
        CallStep::Complete
    }
}
