//! What parsers of tool calls find.

use super::call_object::CallObject;

/// A part of the answer; parts of one kind that follow one another are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToolPiece {
    Content(String),
    /// A call of this function begins.
    Start(String),
    /// The next part of its arguments.
    Arguments(String),
    /// They are complete.
    End,
    /// The call that began is none; all of its text, what was passed on as arguments included.
    Abandon(String),
}

/// Collects parts in their order.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<ToolPiece>);

impl Pieces {
    pub(super) fn content(&mut self, c: char) {
        match self.0.last_mut() {
            Some(ToolPiece::Content(text)) => text.push(c),
            _ => self.0.push(ToolPiece::Content(c.into())),
        }
    }

    pub(super) fn content_str(&mut self, text: &str) {
        text.chars().for_each(|c| self.content(c));
    }

    pub(super) fn start(&mut self, name: &str) {
        self.0.push(ToolPiece::Start(name.to_owned()));
    }

    pub(super) fn arguments(&mut self, c: char) {
        match self.0.last_mut() {
            Some(ToolPiece::Arguments(text)) => text.push(c),
            _ => self.0.push(ToolPiece::Arguments(c.into())),
        }
    }

    pub(super) fn end(&mut self) {
        self.0.push(ToolPiece::End);
    }

    pub(super) fn abandon(&mut self, raw: String) {
        self.0.push(ToolPiece::Abandon(raw));
    }

    /// `call`, behind `before`, turned out to be none.
    pub(super) fn not_a_call(&mut self, before: &str, call: &CallObject) {
        let raw = format!("{before}{}", call.raw());
        if call.has_started() { self.abandon(raw) } else { self.content_str(&raw) }
    }

    pub(super) fn take(&mut self) -> Vec<ToolPiece> {
        std::mem::take(&mut self.0)
    }
}
