//! Finds stop strings in a text that arrives in pieces, holding back only what might be the beginning of one.

/// What a piece of text meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that certainly belongs to the output.
    pub text: String,
    /// Index of the stop string that has come; it and all after it are not part of the output.
    pub matched: Option<usize>,
}

/// The first stop string to be complete ends the text, wherever the pieces are cut; of two that complete together, the longer one does.
///
/// One Knuth-Morris-Pratt automaton per stop string: a byte costs amortised O(1) for each.
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    /// The end of the text so far that may still turn out to begin a stop string.
    held: String,
}

struct Pattern {
    bytes: Vec<u8>,
    /// For each length of a matched prefix, less one: the next shorter prefix that also ends there.
    fallback: Vec<usize>,
    matched: usize,
}

impl StopMatcher {
    /// Stop strings must not be empty; empty ones never match.
    pub fn new(stops: &[String]) -> Self {
        Self { patterns: stops.iter().map(|s| Pattern::new(s)).collect(), held: String::new() }
    }

    /// After a match it knows nothing of what came before.
    pub fn push(&mut self, piece: &str) -> StopStep {
        if self.patterns.is_empty() {
            return StopStep { text: piece.to_owned(), matched: None };
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (offset, byte) in piece.bytes().enumerate() {
            let mut completed: Option<(usize, usize)> = None;
            for (index, pattern) in self.patterns.iter_mut().enumerate() {
                if pattern.advance(byte) && completed.is_none_or(|(_, length)| pattern.bytes.len() > length) {
                    completed = Some((index, pattern.bytes.len()));
                }
            }
            if let Some((index, length)) = completed {
                self.held.truncate(before + offset + 1 - length);
                self.patterns.iter_mut().for_each(|pattern| pattern.matched = 0);
                return StopStep { text: std::mem::take(&mut self.held), matched: Some(index) };
            }
        }
        let undecided = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - undecided);
        StopStep { text: std::mem::replace(&mut self.held, rest), matched: None }
    }

    /// What was held back, when no more text follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

impl Pattern {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut fallback = vec![0; bytes.len()];
        let mut length = 0;
        for i in 1..bytes.len() {
            while length > 0 && bytes[length] != bytes[i] {
                length = fallback[length - 1];
            }
            length += usize::from(bytes[length] == bytes[i]);
            fallback[i] = length;
        }
        Self { bytes, fallback, matched: 0 }
    }

    /// Whether the pattern is complete with this byte.
    fn advance(&mut self, byte: u8) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}
