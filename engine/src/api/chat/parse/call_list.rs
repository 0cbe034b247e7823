//! Several calls in a row: `[{...}, {...}]`, or `{...}; {...}` without brackets.

use super::{
    Pieces,
    call_object::{CallObject, CallStep},
};

/// Reads a list of calls as it arrives.
pub(super) struct CallList {
    /// Between the brackets, or separated by semicolons.
    in_brackets: bool,
    place: Place,
    /// What was read since the last complete call.
    raw: String,
}

enum Place {
    Before,
    Call(Box<CallObject>),
    After,
    BetweenCalls,
}

impl CallList {
    /// `[{...}, {...}]`, from the bracket on.
    pub(super) fn in_brackets() -> Self {
        Self { in_brackets: true, place: Place::Before, raw: String::new() }
    }

    /// `{...}; {...}`, which has no end of its own.
    pub(super) fn with_semicolons() -> Self {
        Self { in_brackets: false, place: Place::BetweenCalls, raw: String::new() }
    }

    /// Complete only with the closing bracket.
    pub(super) fn push(&mut self, c: char, out: &mut Pieces) -> CallStep {
        let separator = if self.in_brackets { ',' } else { ';' };
        match &mut self.place {
            Place::Call(call) => {
                let step = call.push(c, out);
                if step == CallStep::Complete {
                    self.raw.clear();
                    self.place = Place::After;
                    return CallStep::Inside;
                }
                return step;
            }
            _ if c.is_ascii_whitespace() => {}
            Place::Before if c == '[' => self.place = Place::BetweenCalls,
            Place::BetweenCalls if c == '{' => {
                let mut call = Box::new(CallObject::new());
                call.push(c, out);
                self.place = Place::Call(call);
                return CallStep::Inside;
            }
            Place::After if c == separator => self.place = Place::BetweenCalls,
            Place::After if c == ']' && self.in_brackets => return CallStep::Complete,
            _ => return CallStep::Bad,
        }
        self.raw.push(c);
        CallStep::Inside
    }

    /// Whether all that came is whole calls and what may stand between them.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.place, Place::After | Place::BetweenCalls)
    }

    /// Gives up: what was read since the last complete call, behind `before`, is text, or a call that is taken back.
    pub(super) fn give_up(self, before: &str, out: &mut Pieces) {
        let (started, raw) = match &self.place {
            Place::Call(call) => (call.has_started(), format!("{before}{}{}", self.raw, call.raw())),
            _ => (false, format!("{before}{}", self.raw)),
        };
        if started { out.abandon(raw) } else { out.content_str(&raw) }
    }
}
