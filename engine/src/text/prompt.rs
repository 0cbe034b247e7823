use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::GenerateError;
use crate::{config::EngineInfo, tokenizer::Tokenizer};

/// What the model is to continue or answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Continued as it stands, behind what the tokenizer puts before any text.
    Text(String),
    /// Continued as it stands.
    Tokens(Vec<u32>),
    /// Answered, in the form that the model's chat template gives it.
    Chat(Vec<Message>),
}

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, and whatever else the template knows.
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }
}

impl Prompt {
    /// The tokens that the model reads, within its context with room for at least one more.
    pub(super) fn encode(self, tokenizer: &Tokenizer, info: &EngineInfo) -> Result<Vec<u32>, GenerateError> {
        let tokens = match self {
            Self::Tokens(tokens) => tokens,
            Self::Text(text) => encode_text(&text, true, tokenizer, info)?,
            Self::Chat(messages) => {
                let template = tokenizer.chat_template().ok_or(GenerateError::NoChatTemplate)?;
                let messages = messages.iter().map(|m| json!({"role": m.role, "content": m.content}));
                encode_text(&template.render(messages.collect(), true, Map::new())?, false, tokenizer, info)?
            }
        };
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if tokens.len() > info.longest_prompt() {
            return Err(GenerateError::TooLong { prompt: format!("{} tokens", tokens.len()), max_model_len: info.max_model_len });
        }
        match tokens.iter().find(|&&id| id as usize >= info.vocab_size) {
            Some(&id) => Err(GenerateError::UnknownToken { id, vocab_size: info.vocab_size }),
            None => Ok(tokens),
        }
    }
}

fn encode_text(text: &str, add_special_tokens: bool, tokenizer: &Tokenizer, info: &EngineInfo) -> Result<Vec<u32>, GenerateError> {
    // Too long whatever its tokens are, which then need not be made.
    if text.len() > info.max_model_len.saturating_mul(tokenizer.max_bytes_per_token()) {
        return Err(GenerateError::TooLong { prompt: format!("{} bytes of text", text.len()), max_model_len: info.max_model_len });
    }
    Ok(tokenizer.encode(text, add_special_tokens)?)
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Self::Tokens(tokens)
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Self::Chat(messages)
    }
}
