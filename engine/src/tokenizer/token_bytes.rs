//! The byte string behind every token of a byte-level vocabulary.

use std::collections::HashMap;

use tokenizers::DecoderWrapper;

/// All tokens' bytes, one after the other.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Per id, plus one: where its bytes begin.
    starts: Vec<u32>,
}

impl TokenBytes {
    /// `None` unless the tokenizer decodes by GPT-2's byte alphabet and nothing else.
    pub(super) fn for_byte_level(tokenizer: &tokenizers::Tokenizer, vocab_size: usize) -> Option<Self> {
        if !matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return None;
        }
        let alphabet = byte_alphabet();
        let mut table = Self { bytes: Vec::new(), starts: vec![0] };
        for id in 0..vocab_size as u32 {
            if let Some(token) = tokenizer.id_to_token(id) {
                // A token with any character outside the alphabet stands for its own text, as the ByteLevel decoder has it.
                match token.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>() {
                    Some(bytes) => table.bytes.extend(bytes),
                    None => table.bytes.extend(token.as_bytes()),
                }
            }
            table.starts.push(table.bytes.len() as u32);
        }
        Some(table)
    }

    /// Length of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0)
    }

    /// Empty for ids outside the vocabulary.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..id as usize + 2) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// What a piece of a SentencePiece vocabulary adds to a text: `▁` stands for a space, `<0x0A>` for a byte.
pub(super) fn of_piece(piece: &str) -> Vec<u8> {
    let byte = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|digits| digits.len() == 2);
    match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => piece.replace('\u{2581}', " ").into_bytes(),
    }
}

/// GPT-2's `bytes_to_unicode`, turned round: printable Latin-1 stands for itself, other bytes for U+0100 and up in order.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255u8).filter(|b| !printable(b)).zip('\u{100}'..);
    (0..=255u8).filter(printable).map(|b| (b as char, b)).chain(others.map(|(b, c)| (c, b))).collect()
}
