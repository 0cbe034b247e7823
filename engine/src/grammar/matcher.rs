use llguidance::TokenParser;

use super::error::{MatchError, first_line};
use crate::sampling::TokenMask;

/// One sequence's place in its grammar. Follows output tokens only, so that what happens to the sequence's KV does not concern it.
pub struct Matcher {
    inner: llguidance::Matcher,
    eos_token_ids: Vec<u32>,
    /// Whether an end-of-sequence token has come.
    ended: bool,
}

impl Matcher {
    pub(super) fn new(parser: TokenParser, eos_token_ids: Vec<u32>) -> Result<Self, MatchError> {
        let inner = llguidance::Matcher::new(Ok(parser));
        match inner.get_error() {
            Some(error) => Err(MatchError(first_line(&anyhow::anyhow!(error)))),
            None => Ok(Self { inner, eos_token_ids, ended: false }),
        }
    }

    /// An independent matcher at the same place.
    pub fn fork(&self) -> Self {
        Self { inner: self.inner.deep_clone(), eos_token_ids: self.eos_token_ids.clone(), ended: self.ended }
    }

    /// The tokens that may come next; where the text may end here, the end-of-sequence tokens are among them, and where it must, they are all.
    ///
    /// # Errors
    /// When the grammar needs more work at this place than a step may cost.
    pub fn mask(&mut self) -> Result<TokenMask, MatchError> {
        if self.ended {
            return Ok(self.eos_token_ids.iter().copied().collect());
        }
        let mask = self.inner.compute_mask_or_eos().map_err(|e| MatchError(first_line(&e)))?;
        Ok(TokenMask::from_words(mask.as_slice().to_vec()))
    }

    /// Takes in the token that was chosen under the latest mask.
    ///
    /// # Errors
    /// When the mask does not allow the token.
    pub fn commit(&mut self, token: u32) -> Result<(), MatchError> {
        if self.eos_token_ids.contains(&token) {
            self.ended = true;
            return Ok(());
        }
        if self.inner.is_stopped() {
            return Err(MatchError(format!("token {token} comes after its end")));
        }
        self.inner.consume_token(token).map_err(|e| MatchError(first_line(&e)))
    }

    /// Whether the text may end here.
    pub fn may_end(&mut self) -> bool {
        self.ended || self.inner.is_stopped() || self.inner.is_accepting().unwrap_or(false)
    }
}
