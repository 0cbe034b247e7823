use super::{PromptField, types::CompletionFields};
use crate::api::{
    ApiError, ApiState,
    generation::{GenerationFields, GenerationOptions, checked_logprobs, number_of_choices, refuse_unsupported},
    json_body::JsonBody,
};

/// A request whose fields are all good; whether its prompts fit is known once they are tokenised.
pub(super) struct CompletionRequest {
    pub(super) model: String,
    pub(super) prompt: PromptField,
    pub(super) max_tokens: Option<i64>,
    pub(super) add_special_tokens: bool,
    /// At least as many as `options.n`.
    pub(super) best_of: usize,
    pub(super) echo: Option<Echo>,
    /// Alternatives to show with each token, where log-probabilities are to be shown.
    pub(super) logprobs: Option<u32>,
    /// Whether the field `prompt_logprobs` asked for log-probabilities, not only `echo`.
    pub(super) prompt_logprobs: bool,
    pub(super) options: GenerationOptions,
}

/// The answer begins with the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    WithAnswer,
    /// `max_tokens` is 0: the prompt is all there is.
    PromptOnly,
}

pub(super) fn validate(state: &ApiState, body: &JsonBody) -> Result<CompletionRequest, ApiError> {
    let fields: CompletionFields = body.fields()?;
    let model = state.model_name(fields.model.as_deref())?;
    refuse_unsupported(body)?;
    let prompt = fields.prompt.ok_or_else(|| ApiError::field("prompt", "prompt is required."))?;
    let info = state.engine.info();
    let logprobs = fields.logprobs.map(|n| checked_logprobs("logprobs", n, info)).transpose()?;
    let generation: GenerationFields = body.fields()?;
    let mut options = generation.validate(state, body, logprobs)?;

    let best_of = fields.best_of.map(|n| number_of_choices("best_of", n)).transpose()?.unwrap_or(options.n);
    if best_of < options.n {
        let message = format!("best_of must be at least n, got n={} and best_of={best_of}.", options.n);
        return Err(ApiError::field("best_of", message));
    }
    if best_of > options.n {
        if options.stream.is_some() {
            return Err(ApiError::field("best_of", "best_of must be the same as n when `stream` is true."));
        }
        // The likeliest cannot be told without.
        options.params.sampling.logprobs.get_or_insert(0);
    }
    let prompt_logprobs = options.params.sampling.prompt_logprobs.is_some();
    let echo = match (fields.echo.unwrap_or(false), fields.max_tokens) {
        (false, _) => None,
        (true, Some(0)) => Some(Echo::PromptOnly),
        (true, _) => Some(Echo::WithAnswer),
    };
    if echo.is_some() {
        options.params.sampling.prompt_logprobs = options.params.sampling.prompt_logprobs.or(logprobs);
    }
    Ok(CompletionRequest {
        model,
        prompt,
        // One token is sampled, which nobody sees.
        max_tokens: if echo == Some(Echo::PromptOnly) { Some(1) } else { fields.max_tokens },
        add_special_tokens: fields.add_special_tokens.unwrap_or(true),
        best_of,
        echo,
        logprobs,
        prompt_logprobs,
        options,
    })
}
