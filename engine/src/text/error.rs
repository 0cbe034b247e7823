use crate::{engine::EngineError, tokenizer::TokenizerError};

/// Why a prompt got no answer, or not all of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,
    #[error("the prompt has {prompt}, which leaves no room for an answer in the context of {max_model_len} tokens")]
    TooLong { prompt: String, max_model_len: usize },
    #[error("max_tokens is {asked}, but the context has room for 1 to {room}")]
    MaxTokens { asked: usize, room: usize },
    #[error("token id {id} is out of vocabulary ({vocab_size} tokens)")]
    UnknownToken { id: u32, vocab_size: usize },
    #[error("this model has no chat template: give the prompt as text")]
    NoChatTemplate,
    #[error("{0}")]
    Tokenizer(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<TokenizerError> for GenerateError {
    fn from(error: TokenizerError) -> Self {
        Self::Tokenizer(error.to_string())
    }
}
