//! `POST /v1/responses`, OpenAI's newer form of a chat: items in, items out. Nothing is stored.

mod convert;
mod items;
mod object;
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
    generation::{self, ConstraintFields, GenerationFields},
    json_body::JsonBody,
    openapi::{Operation, reads},
};

use object::Template;
use types::ResponsesFields;

pub(super) fn describe() -> Operation {
    Operation::post("Answer items with items")
        .takes("ResponsesRequest", [reads::<GenerationFields>(), reads::<ConstraintFields>(), reads::<ResponsesFields>()])
        .gives::<Template>("Response")
        .streams()
}

pub(super) async fn handle(State(state): State<Arc<ApiState>>, context: RequestContext, body: JsonBody) -> Result<Response, ApiError> {
    let fields: ResponsesFields = body.fields()?;
    let chat_body = JsonBody::from_object(convert::chat(&fields, &body)?, body.len());
    let chat = chat::start(&state, &context, &chat_body).await.map_err(convert::renamed)?;
    let template = Template::new(&context.request_id, fields, &chat);
    if let Some(options) = chat.options.stream {
        let format = stream::ResponseEvents::new(template, Arc::clone(&state.tokenizer), &chat);
        return Ok(generation::respond(chat.outputs, options, format));
    }
    let choices = chat.collect().await?;
    Ok(Json(object::response(template, &state.tokenizer, choices)).into_response())
}
