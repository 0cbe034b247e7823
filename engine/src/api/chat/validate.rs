use super::{
    PromptFields,
    parse::{Calls, ParseOptions, ToolCallParser},
    tools::{ToolFields, ToolUse},
    types::ChatFields,
};
use crate::{
    api::{
        ApiError, ApiState,
        generation::{GenerationFields, GenerationOptions, checked_logprobs, refuse_unsupported},
        json_body::JsonBody,
    },
    grammar::{Constraint, JsonStyle},
};

/// A request whose fields are all good; whether its prompt fits is known once it is tokenised.
pub(super) struct ChatRequest {
    pub(super) model: String,
    pub(super) prompt: PromptFields,
    /// The field's name, and what it says.
    pub(super) max_tokens: (&'static str, Option<i64>),
    pub(super) options: GenerationOptions,
    pub(super) parse: ParseOptions,
}

pub(super) fn validate(state: &ApiState, body: &JsonBody) -> Result<ChatRequest, ApiError> {
    let fields: ChatFields = body.fields()?;
    let model = state.model_name(fields.model.as_deref())?;
    refuse_unsupported(body)?;
    if body.get("echo").is_some_and(|echo| *echo == true) {
        return Err(ApiError::field("echo", "`echo` is not supported in chats: /v1/completions has it."));
    }
    let prompt: PromptFields = body.fields()?;
    let tools: ToolFields = body.fields()?;
    let ToolUse { calls, single_call, schema } = tools.validate(&state.chat)?;
    let info = state.engine.info();
    let logprobs = match (fields.logprobs.unwrap_or(false), fields.top_logprobs) {
        (true, top) => Some(checked_logprobs("top_logprobs", top.unwrap_or(0), info)?),
        (false, None | Some(0)) => None,
        (false, Some(_)) => return Err(ApiError::field("top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true.")),
    };
    let generation: GenerationFields = body.fields()?;
    let mut options = generation.validate(state, body, logprobs)?;
    if let Some(schema) = schema {
        if let Some((param, _)) = options.constraint {
            let message = format!("`{param}` cannot be followed where `tool_choice` demands a call.");
            return Err(ApiError::field(param, message));
        }
        options.constraint = Some(("tools", Constraint::JsonSchema { schema, style: call_style() }));
    }
    if matches!(calls, Calls::Auto(_)) {
        // Some models mark calls by special tokens.
        options.params.skip_special_tokens = false;
    }
    Ok(ChatRequest {
        model,
        prompt,
        max_tokens: match fields.max_completion_tokens {
            Some(tokens) => ("max_completion_tokens", Some(tokens)),
            None => ("max_tokens", fields.max_tokens),
        },
        options,
        parse: ParseOptions {
            reasoning: state.chat.reasoning_parser,
            include_reasoning: fields.include_reasoning.unwrap_or(true),
            short_ids: state.chat.tool_call_parser == Some(ToolCallParser::Mistral),
            calls,
            single_call,
        },
    })
}

/// Calls are written in one line, which nobody sees, with the arguments that the function names.
fn call_style() -> JsonStyle {
    JsonStyle { whitespace_pattern: Some(" ".to_owned()), no_additional_properties: true, ..JsonStyle::default() }
}
