use serde::{Deserialize, Serialize};

/// The tokens that may be chosen, one bit each: plain data, made by whoever knows the grammar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMask {
    /// Bit `id % 32` of word `id / 32`; ids beyond the last word may not be chosen.
    words: Vec<u32>,
}

impl TokenMask {
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// Bit `id % 32` of word `id / 32`.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub fn allows(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The lowest token that may be chosen.
    pub fn first(&self) -> Option<u32> {
        let (i, word) = self.words.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(i as u32 * 32 + word.trailing_zeros())
    }

    /// Number of tokens that may be chosen.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Sets the logits of all other tokens to minus infinity.
    pub(super) fn apply(&self, row: &mut [f32]) {
        for (i, part) in row.chunks_mut(32).enumerate() {
            match self.words.get(i).copied().unwrap_or(0) {
                0 => part.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    for (bit, logit) in part.iter_mut().enumerate() {
                        *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
    }
}

impl FromIterator<u32> for TokenMask {
    /// Allows these ids.
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut words = Vec::new();
        for id in ids {
            let at = id as usize / 32;
            if words.len() <= at {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (id % 32);
        }
        Self { words }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_the_set_of_its_ids(ids in prop::collection::btree_set(0u32..400, 0..80), len in 0usize..500, dense in any::<bool>()) {
            let ids: BTreeSet<u32> = if dense { (0..400).filter(|id| !ids.contains(id)).collect() } else { ids };
            let mask: TokenMask = ids.iter().copied().collect();
            let mut row = vec![1.0; len];
            mask.apply(&mut row);
            for id in 0..len as u32 {
                prop_assert_eq!(mask.allows(id), ids.contains(&id));
                prop_assert_eq!(row[id as usize] == 1.0, ids.contains(&id));
            }
            prop_assert_eq!(mask.first(), ids.first().copied());
            prop_assert_eq!(mask.count(), ids.len());
        }
    }
}
