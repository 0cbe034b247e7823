//! Text to token ids and back, as the model's `tokenizer.json` says, and chats to prompts by the model's template.
//!
//! Decoding while tokens arrive never shows half a character and never takes back what was shown.

mod config;
mod detokenizer;
mod error;
mod json;
mod stop;
mod template;
mod token_bytes;

use std::{collections::HashSet, path::Path, sync::Arc};

pub use detokenizer::Detokenizer;
pub use error::TokenizerError;
pub use stop::{StopMatcher, StopStep};
pub use template::ChatTemplate;

use config::TokenizerConfig;
use token_bytes::TokenBytes;

/// Canonical composition, before tokens are made, leaves no less of a text than two of seven bytes (U+1FBE U+0308 U+0301 to U+0390).
const MAX_NORMALIZED_SHRINKAGE: usize = 4;

/// A model's tokenizer with its special tokens and chat template. Immutable; share it in an [`Arc`].
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Present for byte-level vocabularies, whose tokens are byte strings that simply follow one another.
    token_bytes: Option<TokenBytes>,
    chat_template: Option<ChatTemplate>,
    /// What any chat template may name.
    bos_token: Option<String>,
    eos_token: Option<String>,
    vocab_size: usize,
    max_bytes_per_token: usize,
    /// Ids that belong to the protocol rather than the text.
    special_ids: HashSet<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and where they are there `tokenizer_config.json` and `chat_template.jinja`.
    ///
    /// # Errors
    /// When the first is missing, or one of them cannot be read or understood; the message names the file.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let required = dir.join("tokenizer.json");
        let json = std::fs::read(&required).map_err(|source| TokenizerError::Read { file: required.display().to_string(), source })?;
        let config = read_optional(&dir.join("tokenizer_config.json"))?;
        let template = read_optional(&dir.join("chat_template.jinja"))?;
        Self::build(&json, config.as_deref(), template.as_deref(), |name| dir.join(name).display().to_string())
    }

    /// The same from bytes in memory.
    ///
    /// # Errors
    /// When one of them cannot be understood; the message names the file that it stands for.
    pub fn from_bytes(json: &[u8], config: Option<&[u8]>, chat_template: Option<&[u8]>) -> Result<Self, TokenizerError> {
        Self::build(json, config, chat_template, str::to_owned)
    }

    /// The same from what a GGUF file says; `file` is its name, for messages.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn from_gguf(json: &[u8], config: &[u8], file: &str) -> Result<Self, TokenizerError> {
        Self::build(json, Some(config), None, |_| file.to_owned())
    }

    fn build(
        json: &[u8],
        config: Option<&[u8]>,
        chat_template: Option<&[u8]>,
        file: impl Fn(&str) -> String,
    ) -> Result<Self, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| TokenizerError::Corrupt { file: file("tokenizer.json"), reason: e.to_string() })?;
        // Some files carry the padding of their training runs; a server must see a prompt whole and unpadded.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| TokenizerError::Corrupt { file: file("tokenizer.json"), reason: e.to_string() })?;

        let config = match config {
            Some(bytes) => TokenizerConfig::parse(bytes, &file("tokenizer_config.json"))?,
            None => TokenizerConfig::default(),
        };
        let template = match chat_template {
            Some(bytes) => {
                let name = file("chat_template.jinja");
                let source =
                    String::from_utf8(bytes.to_vec()).map_err(|e| TokenizerError::Corrupt { file: name.clone(), reason: e.to_string() })?;
                Some((source, name))
            }
            None => config.default_template().map(|source| (source.to_owned(), file("tokenizer_config.json"))),
        };
        let chat_template = template
            .map(|(source, name)| ChatTemplate::new(&source, config.bos_token.clone(), config.eos_token.clone(), &name))
            .transpose()?;

        // Ids may have gaps: the size is one past the largest.
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let token_bytes = TokenBytes::for_byte_level(&inner, vocab_size);
        let longest = token_bytes.as_ref().map_or_else(|| vocab.keys().map(String::len).max(), |table| Some(table.longest()));
        let TokenizerConfig { bos_token, eos_token, .. } = config;
        let special_ids = inner.get_added_tokens_decoder().iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        Ok(Self {
            inner,
            token_bytes,
            chat_template,
            bos_token,
            eos_token,
            vocab_size,
            max_bytes_per_token: longest.unwrap_or(0).max(1) * MAX_NORMALIZED_SHRINKAGE,
            special_ids,
        })
    }

    /// Puts another chat template in the model's place; `origin` names where `source` came from, for messages.
    ///
    /// # Errors
    /// When it is not a template.
    pub fn set_chat_template(&mut self, source: &str, origin: &str) -> Result<(), TokenizerError> {
        self.chat_template = Some(self.compile_chat_template(source, origin)?);
        Ok(())
    }

    /// A chat template beside the model's own, with the same special tokens.
    ///
    /// # Errors
    /// When it is not a template.
    pub fn compile_chat_template(&self, source: &str, origin: &str) -> Result<ChatTemplate, TokenizerError> {
        ChatTemplate::new(source, self.bos_token.clone(), self.eos_token.clone(), origin)
    }

    /// Token ids of `text`; `add_special_tokens` adds what the model expects around a prompt, such as a beginning-of-sequence token.
    ///
    /// # Errors
    /// When the tokenizer's model cannot represent the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(|e| TokenizerError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`; ids outside the vocabulary add nothing.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        self.inner.decode(ids, skip_special_tokens).map_err(|e| TokenizerError::Decode(e.to_string()))
    }

    /// One token's text on its own, special or not, as log-probabilities show it.
    pub fn token_text(&self, id: u32) -> String {
        self.decode(&[id], false).unwrap_or_default()
    }

    /// The bytes behind [`Tokenizer::token_text`]; exact also for tokens that are parts of a character where the vocabulary is byte-level.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match &self.token_bytes {
            Some(bytes) => bytes.get(id).to_vec(),
            None => self.token_text(id).into_bytes(),
        }
    }

    /// The bytes that the token adds to a text which has begun, as grammars see them. A special token is marked by a leading `0xFF`, which no
    /// text has.
    pub fn grammar_bytes(&self, id: u32) -> Vec<u8> {
        if self.is_special(id) {
            return [&[0xff], self.id_to_token(id).unwrap_or_default().as_bytes()].concat();
        }
        match &self.token_bytes {
            Some(bytes) => bytes.get(id).to_vec(),
            None => self.id_to_token(id).map(|token| token_bytes::of_piece(&token)).unwrap_or_default(),
        }
    }

    /// The special token that is written so, if one is.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text).filter(|&id| self.is_special(id))
    }

    /// The token as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One past the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Text of more than `n` times as many bytes is more than `n` tokens, which saves counting them.
    pub fn max_bytes_per_token(&self) -> usize {
        self.max_bytes_per_token
    }

    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// Decodes ids one by one.
    pub fn detokenizer(self: &Arc<Self>, skip_special_tokens: bool) -> Detokenizer {
        Detokenizer::new(Arc::clone(self), skip_special_tokens)
    }

    fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { file: path.display().to_string(), source }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
