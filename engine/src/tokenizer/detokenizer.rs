//! Ids in one by one, text out as soon as it is certain.

use std::{str, sync::Arc};

use super::Tokenizer;

const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// More tokens than any character has bytes: what still reads as broken after that many is broken.
const MAX_PENDING_TOKENS: usize = 8;

/// Decodes a growing list of ids. What [`Detokenizer::push`] and [`Detokenizer::finish`] return adds up to the decoding of the whole.
///
/// Each push costs the same however long the text has become.
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    state: State,
}

enum State {
    /// Byte-level vocabularies: the bytes of an unfinished character, at most three.
    Bytes(Vec<u8>),
    /// Any other decoder, whose text of a token depends on its neighbours: vLLM's prefix-offset method.
    Window(Window),
}

/// The latest tokens: those whose text has been returned, kept as context, and those whose text has not.
#[derive(Default)]
struct Window {
    ids: Vec<u32>,
    /// Number of leading ids that are context.
    context: usize,
    /// What the context decodes to.
    context_text: String,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        let state = if tokenizer.token_bytes.is_some() { State::Bytes(Vec::new()) } else { State::Window(Window::default()) };
        Self { tokenizer, skip_special_tokens, state }
    }

    /// Text that `id` makes certain, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if self.skip_special_tokens && self.tokenizer.is_special(id) {
            return None;
        }
        match (&mut self.state, &self.tokenizer.token_bytes) {
            (State::Bytes(pending), Some(table)) => {
                pending.extend_from_slice(table.get(id));
                take_decided(pending)
            }
            (State::Window(window), _) => window.push(id, &self.tokenizer),
            (State::Bytes(_), None) => unreachable!("a byte state is made for byte-level vocabularies only"),
        }
    }

    /// What is left when no token follows: a character cut short reads as U+FFFD.
    pub fn finish(&mut self) -> Option<String> {
        match &mut self.state {
            State::Bytes(pending) => {
                let text = String::from_utf8_lossy(&std::mem::take(pending)).into_owned();
                (!text.is_empty()).then_some(text)
            }
            State::Window(window) => window.finish(&self.tokenizer),
        }
    }
}

/// Takes everything that later bytes cannot change; invalid sequences become U+FFFD as in `String::from_utf8_lossy`.
fn take_decided(pending: &mut Vec<u8>) -> Option<String> {
    let undecided = pending.utf8_chunks().last().map_or(0, |chunk| {
        let broken = chunk.invalid();
        // An incomplete sequence at the very end is not an error yet.
        if is_cut_short(broken) { broken.len() } else { 0 }
    });
    let decided = pending.len() - undecided;
    let text = String::from_utf8_lossy(&pending[..decided]).into_owned();
    pending.drain(..decided);
    (!text.is_empty()).then_some(text)
}

/// Whether bytes end inside a character.
fn is_cut_short(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

/// The bytes of the byte-fallback tokens (`<0xEF>`) at the end of `ids`; `None` where the last is another kind of token.
fn trailing_bytes(ids: &[u32], tokenizer: &Tokenizer) -> Option<Vec<u8>> {
    let byte = |&id: &u32| {
        let token = tokenizer.id_to_token(id)?;
        u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
    };
    let mut bytes: Vec<u8> = ids.iter().rev().map_while(byte).collect();
    bytes.reverse();
    (!bytes.is_empty()).then_some(bytes)
}

impl Window {
    fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Option<String> {
        self.ids.push(id);
        let text = tokenizer.decode(&self.ids, false).unwrap_or_default();
        let pending = &self.ids[self.context..];
        // U+FFFD may also be what the model says: bytes tell the two apart.
        let broken = trailing_bytes(pending, tokenizer).map_or_else(|| text.ends_with(REPLACEMENT), |bytes| is_cut_short(&bytes));
        let incomplete = broken && pending.len() < MAX_PENDING_TOKENS;
        if text.len() <= self.context_text.len() || incomplete {
            return None;
        }
        let new = self.unseen(&text);
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        self.context_text = tokenizer.decode(&self.ids, false).unwrap_or_default();
        new
    }

    fn finish(&mut self, tokenizer: &Tokenizer) -> Option<String> {
        let text = tokenizer.decode(&self.ids, false).unwrap_or_default();
        let new = self.unseen(&text);
        *self = Self::default();
        new
    }

    fn unseen(&self, text: &str) -> Option<String> {
        // A decoder that changes earlier text is beyond repair here; it then shows what follows at the same length.
        let new = text.strip_prefix(self.context_text.as_str()).or_else(|| text.get(self.context_text.len()..))?;
        (!new.is_empty()).then(|| new.to_owned())
    }
}
