//! `POST /v1/completions`.

mod convert;
mod logprobs;
mod response;
mod stream;
mod types;
mod validate;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::future::try_join_all;

use super::{ApiError, ApiState, context::RequestContext, generation, json_body::JsonBody};

pub(super) use convert::{PromptField, prompt_tokens};

/// OpenAI's, where a request names none.
const DEFAULT_MAX_TOKENS: usize = 16;

pub(super) async fn handle(State(state): State<Arc<ApiState>>, context: RequestContext, body: JsonBody) -> Result<Response, ApiError> {
    let request = validate::validate(&state, &body)?;
    let prompts = prompt_tokens(&state, "prompt", request.prompt, request.add_special_tokens).await?;
    let info = state.engine.info();
    let mut sized = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        generation::check_prompt("prompt", &prompt, info)?;
        let max_tokens = generation::max_tokens("max_tokens", request.max_tokens, Some(DEFAULT_MAX_TOKENS), prompt.len(), info)?;
        sized.push((prompt, max_tokens));
    }

    let started = sized.into_iter().map(|(prompt, max_tokens)| generation::start(&state, &context, &request.options, prompt, max_tokens));
    let outputs = started.collect::<Result<Vec<_>, _>>()?;
    let head = response::Head::new(&context.request_id, request.model);
    if let Some(options) = request.options.stream {
        let format = stream::CompletionEvents::new(head, Arc::clone(&state.tokenizer), outputs.len(), &request.options, options);
        return Ok(generation::respond(outputs, options, format));
    }
    let prompt_tokens = outputs.iter().map(generation::Output::prompt_tokens).sum();
    let wholes = try_join_all(outputs.into_iter().map(generation::Output::collect)).await?;
    Ok(Json(response::completion(&head, &state.tokenizer, &request.options, prompt_tokens, &wholes)).into_response())
}
