//! The answer in chunks.

use super::{
    response::{Choice, Head},
    view::View,
};
use crate::api::generation::{Delta, EventFormat, LinkReport, StreamOptions, Usage, write_event};

pub(super) struct CompletionEvents {
    head: Head,
    view: View,
    with_health: bool,
    choices: Vec<ChoiceState>,
}

#[derive(Clone, Default)]
struct ChoiceState {
    has_begun: bool,
    /// Where its next token begins, in characters.
    text_offset: usize,
}

impl CompletionEvents {
    pub(super) fn new(head: Head, view: View, stream: StreamOptions) -> Self {
        Self { head, with_health: stream.include_health, choices: vec![ChoiceState::default(); view.num_choices()], view }
    }

    fn write(&self, choices: Vec<Choice<'_>>, usage: Option<Usage>, delta: &Delta, out: &mut Vec<u8>) {
        let mut chunk = self.head.completion(choices);
        chunk.usage = usage;
        chunk.tokenflow = delta.link.filter(|_| self.with_health).map(LinkReport::from);
        write_event(&chunk, out);
    }
}

impl EventFormat for CompletionEvents {
    fn open(&mut self, _: usize, _: &Delta, _: Option<Usage>, _: &mut Vec<u8>) {}

    fn delta(&mut self, index: usize, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>) {
        let state = &mut self.choices[index];
        let is_first = !std::mem::replace(&mut state.has_begun, true);
        let shown = self.view.show(index, delta, is_first, &mut state.text_offset);
        self.write(vec![Choice::new(index, delta, shown)], usage, delta, out);
    }

    fn usage(&mut self, usage: Usage, last: &Delta, out: &mut Vec<u8>) {
        self.write(Vec::new(), Some(usage), last, out);
    }
}
