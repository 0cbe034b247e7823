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

use serde_json::Value;

use super::{
    ApiError, ApiState, chat,
    context::RequestContext,
    generation,
    json_body::JsonBody,
    openapi::{Operation, reads},
};

use object::Template;
use types::ResponsesFields;

/// What a request may hold: the route's own fields, and those of a chat that are passed on.
fn request_parts() -> Vec<Value> {
    let mut parts = Vec::from(chat::request_parts());
    for part in &mut parts {
        let part = part.as_object_mut().expect("a schema of an object");
        part.remove("required");
        if let Some(fields) = part.get_mut("properties").and_then(Value::as_object_mut) {
            fields.retain(|name, _| convert::SHARED.contains(&name.as_str()));
        }
    }
    parts.push(reads::<ResponsesFields>());
    parts
}

pub(super) fn describe() -> Operation {
    Operation::post("Answer items with items").takes("ResponsesRequest", request_parts()).gives::<Template>("Response").streams()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Map, json};

    use super::*;

    /// What a chat takes and a response does not: it says the same otherwise, or has no place to show what they ask for.
    const OF_CHATS_ONLY: &[&str] = &[
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "response_format",
        "reasoning_effort",
        "n",
        "logprobs",
        "top_logprobs",
        "prompt_logprobs",
        "return_token_ids",
        "return_tokens_as_token_ids",
    ];

    fn names<'a>(parts: impl IntoIterator<Item = &'a Value>) -> BTreeSet<&'a str> {
        parts.into_iter().flat_map(|part| part["properties"].as_object().expect("fields").keys()).map(String::as_str).collect()
    }

    /// A parameter that chats learn has to be passed on or named above.
    #[test]
    fn every_field_of_a_chat_is_passed_on_or_left_out_by_name() {
        let (chat, own) = (chat::request_parts(), [reads::<ResponsesFields>()]);
        let (chat, own) = (names(&chat), names(&own));
        let shared: BTreeSet<&str> = convert::SHARED.iter().copied().collect();
        let elsewhere: BTreeSet<&str> = OF_CHATS_ONLY.iter().copied().collect();
        assert_eq!(shared.len(), convert::SHARED.len(), "each once");
        assert!(shared.is_disjoint(&elsewhere));
        assert_eq!(&(&shared - &chat), &BTreeSet::new(), "no chat takes these");
        assert_eq!(&(&(&chat - &shared) - &elsewhere), &["tool_choice", "tools"].into(), "converted, as their shapes differ");
        let documented = request_parts();
        assert_eq!(names(&documented), &shared | &own);
    }

    #[test]
    fn what_is_passed_on_arrives_as_it_was_said() {
        let mut object: Map<String, Value> = convert::SHARED.iter().map(|name| ((*name).to_owned(), json!([name]))).collect();
        object.extend([
            ("model".to_owned(), json!("m")),
            ("parallel_tool_calls".to_owned(), json!(true)),
            ("input".to_owned(), json!("x")),
            ("user".to_owned(), json!("u")),
        ]);
        let body = JsonBody::from_object(object.clone(), 0);
        let chat = convert::chat(&body.fields().unwrap(), &body).unwrap();
        for name in convert::SHARED {
            assert_eq!(chat[*name], object[*name], "{name}");
        }
    }
}
