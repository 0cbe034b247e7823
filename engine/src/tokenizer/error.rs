/// What can be wrong with a tokenizer's files or with a text given to it. Each message is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("{file} cannot be read: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("{file} is not a usable tokenizer file: {reason}")]
    Corrupt { file: String, reason: String },
    #[error("the chat template in {file} is not valid: {reason}")]
    Template { file: String, reason: String },
    #[error("the chat template refused the messages: {0}")]
    Render(String),
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    #[error("the tokens cannot be decoded: {0}")]
    Decode(String),
}
