//! `<think>...</think>` split off the answer, as Qwen3 writes what it thinks.

use super::marker::Marker;

pub(in crate::api) const OPEN: &str = "<think>";
pub(in crate::api) const CLOSE: &str = "</think>";

/// Where the answer begins, which the prompt's end tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum ReasoningStart {
    /// The model may open its reasoning or answer at once.
    Undecided,
    /// The prompt ends inside of reasoning.
    Inside,
    /// The prompt closed it: all that follows is the answer.
    Over,
}

impl ReasoningStart {
    /// As `prompt`, a rendered chat, ends.
    pub(in crate::api) fn of(prompt: &str) -> Self {
        let prompt = prompt.trim_end();
        if prompt.ends_with(OPEN) {
            Self::Inside
        } else if prompt.ends_with(CLOSE) {
            Self::Over
        } else {
            Self::Undecided
        }
    }
}

#[derive(Debug)]
pub(super) struct Reasoning(State);

#[derive(Debug)]
enum State {
    /// White space and what may be the opening tag.
    Start(String),
    Inside(Marker),
    Over,
}

/// Where a character belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Reasoning,
    Answer,
}

impl Reasoning {
    pub(super) fn new(start: ReasoningStart) -> Self {
        Self(match start {
            ReasoningStart::Undecided => State::Start(String::new()),
            ReasoningStart::Inside => State::inside(),
            ReasoningStart::Over => State::Over,
        })
    }

    pub(super) fn push(&mut self, c: char, out: &mut impl FnMut(Part, char)) {
        match &mut self.0 {
            State::Start(held) => {
                held.push(c);
                let tag = held.trim_start();
                if tag == OPEN {
                    self.0 = State::inside();
                } else if !OPEN.starts_with(tag) {
                    held.chars().for_each(|c| out(Part::Answer, c));
                    self.0 = State::Over;
                }
            }
            State::Inside(marker) => {
                if marker.push(c, |c| out(Part::Reasoning, c)) {
                    self.0 = State::Over;
                }
            }
            State::Over => out(Part::Answer, c),
        }
    }

    pub(super) fn finish(&mut self, out: &mut impl FnMut(Part, char)) {
        match std::mem::replace(&mut self.0, State::Over) {
            State::Start(held) => held.chars().for_each(|c| out(Part::Answer, c)),
            State::Inside(mut marker) => marker.take_held().chars().for_each(|c| out(Part::Reasoning, c)),
            State::Over => {}
        }
    }
}

impl State {
    fn inside() -> Self {
        Self::Inside(Marker::new(CLOSE))
    }
}
