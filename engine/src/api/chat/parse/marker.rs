//! Finds a fixed marker in text that arrives in pieces.

/// Holds back what may be the marker's beginning.
#[derive(Debug)]
pub(super) struct Marker {
    marker: &'static str,
    held: String,
}

impl Marker {
    pub(super) fn new(marker: &'static str) -> Self {
        Self { marker, held: String::new() }
    }

    /// Takes a character; gives `text` what is certain not to belong to the marker. True when the marker is complete, which is then forgotten.
    pub(super) fn push(&mut self, c: char, mut text: impl FnMut(char)) -> bool {
        self.held.push(c);
        while !self.marker.starts_with(self.held.as_str()) {
            text(self.held.remove(0));
        }
        let found = self.held == self.marker;
        if found {
            self.held.clear();
        }
        found
    }

    /// What is held back, now that nothing follows.
    pub(super) fn take_held(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
