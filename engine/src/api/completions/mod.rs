//! `POST /v1/completions`.

mod best;
mod convert;
mod logprobs;
mod response;
mod stream;
mod types;
mod validate;
mod view;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::future::try_join_all;

use super::{
    ApiError, ApiState,
    context::RequestContext,
    generation::{self, ConstraintFields, GenerationFields},
    json_body::JsonBody,
    openapi::{Operation, reads},
};

pub(super) use convert::{PromptField, prompt_tokens};

/// OpenAI's, where a request names none.
const DEFAULT_MAX_TOKENS: usize = 16;

pub(super) fn describe() -> Operation {
    Operation::post("Continue text")
        .takes("CompletionRequest", [reads::<types::CompletionFields>(), reads::<GenerationFields>(), reads::<ConstraintFields>()])
        .gives::<response::Completion<'_>>("Completion")
        .streams()
}

pub(super) async fn handle(State(state): State<Arc<ApiState>>, context: RequestContext, body: JsonBody) -> Result<Response, ApiError> {
    let mut request = validate::validate(&state, &body)?;
    let prompt = std::mem::replace(&mut request.prompt, PromptField::Text(String::new()));
    let prompts = prompt_tokens(&state, "prompt", prompt, request.add_special_tokens, request.options.truncation).await?;
    generation::check_choices(prompts.len(), request.best_of)?;
    state.engine.core().check_count(prompts.len() * request.best_of)?;
    let info = state.engine.info();
    let mut sizes = Vec::with_capacity(prompts.len());
    for prompt in &prompts {
        generation::check_prompt("prompt", &prompt.tokens, info)?;
        let length = prompt.tokens.len();
        sizes.push(generation::max_tokens("max_tokens", request.max_tokens, Some(DEFAULT_MAX_TOKENS), length, info)?);
    }
    if let Some(constraint) = request.options.constraint.take() {
        request.options.params.grammar = Some(generation::compile(&state, constraint).await?);
    }

    let mut outputs = Vec::with_capacity(prompts.len() * request.best_of);
    for (prompt, max_tokens) in prompts.iter().zip(sizes) {
        outputs.extend(generation::start(&state, &context, &request.options, prompt.tokens.clone(), max_tokens, request.best_of)?);
    }
    let view = view::View::new(Arc::clone(&state.tokenizer), &request, prompts);
    let head = response::Head::new(&context.request_id, request.model);
    if let Some(options) = request.options.stream {
        return Ok(generation::respond(outputs, options, stream::CompletionEvents::new(head, view, options)));
    }
    let wholes = try_join_all(outputs.into_iter().map(generation::Output::collect)).await?;
    let completion_tokens = wholes.iter().map(|whole| whole.num_tokens).sum();
    let cached_tokens = wholes.iter().step_by(request.best_of).filter_map(|first| first.cached_tokens).sum();
    let usage = generation::Usage::new(view.prompt_tokens(), completion_tokens).with_cached(cached_tokens);
    let shown = best::best(wholes, request.best_of, request.options.n);
    Ok(Json(response::completion(&head, &view, usage, &shown)).into_response())
}
