//! `POST /v1/messages` and `/v1/messages/count_tokens`, as Anthropic's clients ask: chats in other words.

mod convert;
mod error;
mod response;
mod stream;
mod types;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{
    ApiError, ApiState, chat,
    context::RequestContext,
    generation,
    json_body::JsonBody,
    openapi::{Errors, Operation, reads},
};

pub(super) use error::{ErrorBody, MessagesError};

use response::Head;
use types::{InputTokens, MessagesFields};

pub(super) fn describe() -> Operation {
    Operation::post("Answer a chat, as Anthropic's clients ask")
        .takes("MessagesRequest", [reads::<MessagesFields>()])
        .gives::<response::Message>("Message")
        .streams()
        .fails(Errors::Anthropic)
}

pub(super) fn describe_count() -> Operation {
    Operation::post("Count the tokens that a chat has the model read")
        .takes("CountTokensRequest", [reads::<MessagesFields>()])
        .gives::<InputTokens>("InputTokens")
        .fails(Errors::Anthropic)
}

pub(super) async fn handle(
    State(state): State<Arc<ApiState>>,
    context: Result<RequestContext, ApiError>,
    body: Result<JsonBody, ApiError>,
) -> Result<Response, MessagesError> {
    let (context, body) = (context?, body?);
    let fields: MessagesFields = body.fields()?;
    if fields.max_tokens.is_none() {
        return Err(ApiError::field("max_tokens", "`max_tokens` is required: the most tokens that the answer may have.").into());
    }
    let chat_body = JsonBody::from_object(convert::chat(fields)?, body.len());
    let chat = chat::start(&state, &context, &chat_body).await?;
    let head = Head::new(&context.request_id, &chat);
    if let Some(options) = chat.options.stream {
        let format = stream::MessageEvents::new(head, &chat);
        return Ok(generation::respond(chat.outputs, options, format));
    }
    let choices = chat.collect().await.map_err(ApiError::from)?;
    Ok(Json(head.message(choices)).into_response())
}

/// The tokens that the same request to `/v1/messages` would have the model read.
pub(super) async fn count_tokens(
    State(state): State<Arc<ApiState>>,
    body: Result<JsonBody, ApiError>,
) -> Result<Json<InputTokens>, MessagesError> {
    let body = body?;
    let fields: MessagesFields = body.fields()?;
    state.model_name(fields.model.as_deref())?;
    let chat_body = JsonBody::from_object(convert::chat(fields)?, body.len());
    let prompt = chat::prompt(&state, chat_body.fields()?, body.len(), None).await?;
    Ok(Json(InputTokens { input_tokens: prompt.tokens.len() }))
}
