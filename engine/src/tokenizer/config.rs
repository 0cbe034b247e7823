//! The parts of `tokenizer_config.json` that a server needs.

use serde::Deserialize;

use super::TokenizerError;

#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(default, deserialize_with = "token_text")]
    pub(super) bos_token: Option<String>,
    #[serde(default, deserialize_with = "token_text")]
    pub(super) eos_token: Option<String>,
    #[serde(default)]
    chat_template: Option<Templates>,
}

/// Older files hold several templates by name; the one called `default` is for chats.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "chat_template must be a string or a list of objects with name and template")]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TokenizerConfig {
    pub(super) fn parse(bytes: &[u8], file: &str) -> Result<Self, TokenizerError> {
        serde_json::from_slice(bytes).map_err(|e| TokenizerError::Corrupt { file: file.to_owned(), reason: e.to_string() })
    }

    pub(super) fn default_template(&self) -> Option<&str> {
        match self.chat_template.as_ref()? {
            Templates::One(template) => Some(template),
            Templates::Named(list) => list.iter().find(|t| t.name == "default").map(|t| t.template.as_str()),
        }
    }
}

/// A special token is written as a string or as an object with its `content`.
fn token_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a special token must be a string or an object with content")]
    enum Token {
        Text(String),
        Object { content: String },
    }
    Ok(Option::<Token>::deserialize(deserializer)?.map(|token| match token {
        Token::Text(text) | Token::Object { content: text } => text,
    }))
}
