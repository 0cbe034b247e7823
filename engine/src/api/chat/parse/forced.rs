//! Calls that a constraint makes the model write, so that there is nothing else to find.

use super::{
    Pieces, ToolParser,
    call_list::CallList,
    json::{JsonScanner, Step},
};

/// The arguments of a named function, and nothing else.
pub(super) struct Named {
    name: String,
    scanner: Option<JsonScanner>,
    ended: bool,
}

impl Named {
    pub(super) fn new(name: String) -> Self {
        Self { name, scanner: None, ended: false }
    }
}

impl ToolParser for Named {
    fn push(&mut self, c: char, out: &mut Pieces) {
        if self.ended || (self.scanner.is_none() && c.is_ascii_whitespace()) {
            return;
        }
        let scanner = self.scanner.get_or_insert_with(|| {
            out.start(&self.name);
            JsonScanner::new()
        });
        self.ended = scanner.push(c) == Step::End;
        out.arguments(c);
        if self.ended {
            out.end();
        }
    }

    fn finish(&mut self, _: &mut Pieces) {}
}

/// `[{"name": "f", "arguments": {...}}, ...]`. One that is cut short by the length stays a call.
pub(super) struct Required(CallList);

impl Required {
    pub(super) fn new() -> Self {
        Self(CallList::in_brackets())
    }
}

impl ToolParser for Required {
    fn push(&mut self, c: char, out: &mut Pieces) {
        self.0.push(c, out);
    }

    fn finish(&mut self, _: &mut Pieces) {}
}
