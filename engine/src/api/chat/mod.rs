//! `POST /v1/chat/completions`.

mod convert;
mod logprobs;
mod messages;
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

use super::{ApiError, ApiState, context::RequestContext, generation, json_body::JsonBody};

pub(super) use convert::PromptFields;

pub(super) async fn handle(State(state): State<Arc<ApiState>>, context: RequestContext, body: JsonBody) -> Result<Response, ApiError> {
    let request = validate::validate(&state, &body)?;
    let info = state.engine.info();
    let (fields, max_model_len) = (request.prompt, info.max_model_len);
    let prompt = state
        .with_text(body.len(), move |tokenizer| {
            let add_special_tokens = fields.add_special_tokens();
            let text = fields.render(tokenizer)?;
            generation::check_text("messages", &text, tokenizer, max_model_len)?;
            Ok(tokenizer.encode(&text, add_special_tokens)?)
        })
        .await?;
    generation::check_prompt("messages", &prompt, info)?;
    let (param, requested) = request.max_tokens;
    let max_tokens = generation::max_tokens(param, requested, None, prompt.len(), info)?;

    let output = generation::start(&state, &context, &request.options, prompt, max_tokens)?;
    let head = response::Head::new(&context.request_id, request.model);
    if let Some(options) = request.options.stream {
        let format = stream::ChatEvents::new(head, Arc::clone(&state.tokenizer), &request.options, options);
        return Ok(generation::respond(vec![output], options, format));
    }
    let prompt_tokens = output.prompt_tokens();
    let whole = output.collect().await?;
    Ok(Json(response::completion(&head, &state.tokenizer, &request.options, prompt_tokens, &whole)).into_response())
}
