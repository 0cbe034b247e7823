//! `POST /v1/embeddings`: one vector for each prompt, by models that embed.

mod response;
mod types;
mod validate;

use std::sync::Arc;

use axum::{Json, extract::State};
use futures_util::future::try_join_all;

use super::{
    ApiError, ApiState,
    completions::prompt_tokens,
    context::RequestContext,
    json_body::JsonBody,
    openapi::{Operation, reads},
};
use crate::{
    engine::EmbedRequest,
    scheduler::FinishReason,
    text::{Observer, Outcome},
};

pub(super) fn describe() -> Operation {
    Operation::post("Texts as vectors")
        .takes("EmbeddingRequest", [reads::<types::EmbeddingFields>()])
        .gives::<response::Embeddings>("Embeddings")
}

pub(super) async fn handle(
    State(state): State<Arc<ApiState>>,
    context: RequestContext,
    body: JsonBody,
) -> Result<Json<response::Embeddings>, ApiError> {
    let request = validate::validate(&state, &body)?;
    let prompts = prompt_tokens(&state, "input", request.input, request.add_special_tokens, None).await?;
    let prompts: Vec<Vec<u32>> = prompts.into_iter().map(|prompt| prompt.tokens).collect();
    prompts.iter().try_for_each(|prompt| validate::check_prompt(prompt, state.engine.info()))?;
    state.engine.core().check_count(prompts.len()).map_err(|error| ApiError::field("input", error.to_string()))?;
    let num_tokens = prompts.iter().map(Vec::len).sum();
    if let Some(log) = &context.log {
        log.starts(&request.model, num_tokens, 0, false);
    }
    let origin = context.origin(request.user.as_ref());
    let embed = |prompt| {
        let (priority, timeout, origin) = (request.priority, context.timeout, origin.clone());
        state.engine.embed_tokens(EmbedRequest { prompt, priority, timeout, origin })
    };
    let vectors = try_join_all(prompts.into_iter().map(embed)).await?;
    if let Some(log) = &context.log {
        log.ended(&Outcome { prompt_tokens: num_tokens, finish: Some(FinishReason::Stop), health: 1.0, ..Outcome::default() });
    }
    Ok(Json(response::embeddings(&context.request_id, request.model, vectors, &request.form, num_tokens)))
}
