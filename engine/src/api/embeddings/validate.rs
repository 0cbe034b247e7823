use std::sync::Arc;

use super::types::EmbeddingFields;
use crate::{
    api::{ApiError, ApiState, completions::PromptField, generation::empty_prompt, json_body::JsonBody},
    config::EngineInfo,
};

pub(super) struct EmbeddingRequest {
    pub(super) model: String,
    pub(super) input: PromptField,
    pub(super) add_special_tokens: bool,
    pub(super) priority: i64,
    pub(super) user: Option<Arc<str>>,
    pub(super) form: VectorForm,
}

/// How vectors are handed out.
pub(super) struct VectorForm {
    pub(super) base64: bool,
    /// Leading dimensions to keep, scaled to length 1 again; `None` keeps the vector as it is.
    pub(super) dimensions: Option<usize>,
}

pub(super) fn validate(state: &ApiState, body: &JsonBody) -> Result<EmbeddingRequest, ApiError> {
    let fields: EmbeddingFields = body.fields()?;
    let model = state.model_name(fields.model.as_deref())?;
    if body.get("truncate_prompt_tokens").is_some() {
        return Err(ApiError::field("truncate_prompt_tokens", "`truncate_prompt_tokens` is not supported on this route: leave it out."));
    }
    let input = fields.input.ok_or_else(|| ApiError::field("input", "input is required."))?;
    let base64 = match fields.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(ApiError::field("encoding_format", format!("encoding_format must be \"float\" or \"base64\", got \"{other}\".")));
        }
    };
    let size = state.engine.info().embedding_size.ok_or_else(crate::engine::EngineError::not_embedding)?;
    let dimensions = match fields.dimensions {
        None => None,
        Some(asked) => match usize::try_from(asked) {
            Ok(asked) if (1..=size).contains(&asked) => Some(asked),
            _ => return Err(ApiError::field("dimensions", format!("dimensions must be from 1 to {size}, got {asked}."))),
        },
    };
    Ok(EmbeddingRequest {
        model,
        input,
        add_special_tokens: fields.add_special_tokens.unwrap_or(true),
        priority: fields.priority.unwrap_or(0),
        user: fields.user.filter(|user| !user.is_empty()).map(Arc::from),
        form: VectorForm { base64, dimensions },
    })
}

/// Refuses prompts that are empty, longer than the context or of tokens that the model does not have.
pub(super) fn check_prompt(prompt: &[u32], info: &EngineInfo) -> Result<(), ApiError> {
    let (length, max) = (prompt.len(), info.max_model_len);
    if prompt.is_empty() {
        return Err(empty_prompt("input"));
    }
    if length > info.longest_prompt() {
        let message = format!(
            "This model's maximum context length is {max} tokens. However, your request has {length} input tokens. \
             Please reduce the length of the input."
        );
        return Err(ApiError::field("input", message));
    }
    match prompt.iter().find(|&&id| id as usize >= info.vocab_size) {
        Some(id) => Err(ApiError::field("input", format!("Token id {id} is out of vocabulary ({} tokens).", info.vocab_size))),
        None => Ok(()),
    }
}
