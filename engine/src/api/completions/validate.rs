use super::{PromptField, types::CompletionFields};
use crate::api::{
    ApiError, ApiState,
    generation::{GenerationFields, GenerationOptions, checked_logprobs, refuse_unsupported},
    json_body::JsonBody,
};

/// A request whose fields are all good; whether its prompts fit is known once they are tokenised.
pub(super) struct CompletionRequest {
    pub(super) model: String,
    pub(super) prompt: PromptField,
    pub(super) max_tokens: Option<i64>,
    pub(super) add_special_tokens: bool,
    pub(super) options: GenerationOptions,
}

pub(super) fn validate(state: &ApiState, body: &JsonBody) -> Result<CompletionRequest, ApiError> {
    let fields: CompletionFields = body.fields()?;
    let model = state.model_name(fields.model.as_deref())?;
    refuse_unsupported(body)?;
    let prompt = fields.prompt.ok_or_else(|| ApiError::field("prompt", "prompt is required."))?;
    let info = state.engine.info();
    let logprobs = fields.logprobs.map(|n| checked_logprobs("logprobs", n, info)).transpose()?;
    let generation: GenerationFields = body.fields()?;
    Ok(CompletionRequest {
        model,
        prompt,
        max_tokens: fields.max_tokens,
        add_special_tokens: fields.add_special_tokens.unwrap_or(true),
        options: generation.validate(state, logprobs)?,
    })
}
