//! `POST /v1/chat/completions`, and the way of every chat from messages to a message that other routes take too.

mod config;
mod constrain;
mod convert;
mod logprobs;
mod messages;
mod parse;
mod response;
mod run;
mod stream;
mod tool_schema;
mod tools;
mod types;
mod validate;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{
    ApiError, ApiState,
    context::RequestContext,
    generation::{self, ConstraintFields, GenerationFields},
    json_body::JsonBody,
    openapi::{Operation, reads},
};

pub use config::ChatConfig;
pub use parse::{ReasoningParser, ToolCallParser};

pub(super) use convert::PromptFields;
pub(super) use parse::{MessageParser, Piece, ToolCall, WholeMessage};
pub(super) use run::{Chat, WholeChoice, finish_reason, prompt, start};

/// What a request may hold, as schemas of the types that read it.
pub(super) fn request_parts() -> [serde_json::Value; 5] {
    [
        reads::<types::ChatFields>(),
        reads::<GenerationFields>(),
        reads::<ConstraintFields>(),
        reads::<tools::ToolFields>(),
        reads::<PromptFields>(),
    ]
}

pub(super) fn describe() -> Operation {
    Operation::post("Answer a chat")
        .takes("ChatCompletionRequest", request_parts())
        .gives::<response::ChatCompletion<'_>>("ChatCompletion")
        .streams()
}

pub(super) async fn handle(State(state): State<Arc<ApiState>>, context: RequestContext, body: JsonBody) -> Result<Response, ApiError> {
    let mut chat = start(&state, &context, &body).await?;
    let head = response::Head::new(&context.request_id, chat.model.clone());
    if let Some(options) = chat.options.stream {
        let format = stream::ChatEvents::new(head, Arc::clone(&state.tokenizer), &mut chat, options);
        return Ok(generation::respond(chat.outputs, options, format));
    }
    let prompt = response::PromptInfo { tokens: chat.prompt_tokens(), ids: chat.prompt_token_ids.take() };
    let options = chat.options.clone();
    let choices = chat.collect().await?;
    Ok(Json(response::completion(&head, &state.tokenizer, &options, prompt, &choices)).into_response())
}
