//! `GET /openapi.json`: the routes and the shapes of what goes in and out, made from the types that read and write them.

use std::sync::Arc;

use axum::{Json, extract::State, routing::MethodRouter};
use schemars::{
    JsonSchema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::{ApiState, routes::routes};

/// One path with what answers there and what is said of it.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) methods: MethodRouter<Arc<ApiState>>,
    pub(super) operations: Vec<Operation>,
}

/// One method of a path.
pub(super) struct Operation {
    method: &'static str,
    summary: &'static str,
    request: Option<(&'static str, Value)>,
    /// Content types of the answer, each with the schema of the body.
    answers: Vec<(&'static str, Value)>,
    components: Vec<(&'static str, Value)>,
    errors: Errors,
}

/// Which errors an operation can end with, and in whose shape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errors {
    None,
    /// Of routes that only tell something.
    Unavailable,
    OpenAi,
    Anthropic,
}

impl Operation {
    pub(super) fn get(summary: &'static str) -> Self {
        Self::new("get", summary)
    }

    pub(super) fn post(summary: &'static str) -> Self {
        Self { errors: Errors::OpenAi, ..Self::new("post", summary) }
    }

    fn new(method: &'static str, summary: &'static str) -> Self {
        Self { method, summary, request: None, answers: Vec::new(), components: Vec::new(), errors: Errors::None }
    }

    /// The body's fields, which the route reads as several types.
    pub(super) fn takes(mut self, name: &'static str, parts: impl IntoIterator<Item = Value>) -> Self {
        let mut whole = json!({"type": "object", "properties": {}});
        for part in parts {
            for key in ["properties", "required"] {
                match (&mut whole[key], &part[key]) {
                    (Value::Object(fields), Value::Object(more)) => fields.extend(more.clone()),
                    (Value::Array(names), Value::Array(more)) => names.extend(more.clone()),
                    (mine @ Value::Null, more @ Value::Array(_)) => *mine = more.clone(),
                    _ => {}
                }
            }
        }
        if whole["required"].is_null() {
            whole.as_object_mut().map(|fields| fields.remove("required"));
        }
        self.request = Some((name, reference(name)));
        self.components.push((name, whole));
        self
    }

    /// A JSON body.
    pub(super) fn gives<T: JsonSchema>(mut self, name: &'static str) -> Self {
        let mut schema = schema::<T>(Contract::Serialize);
        close(&mut schema);
        self.components.push((name, schema));
        self.answers.push(("application/json", reference(name)));
        self
    }

    /// A body of another kind.
    pub(super) fn gives_text(mut self, content_type: &'static str) -> Self {
        self.answers.push((content_type, json!({"type": "string"})));
        self
    }

    /// Server-sent events, where the request asks for a stream; the schema is of one event.
    pub(super) fn streams(mut self) -> Self {
        let fields = json!({"event": {"type": "string"}, "data": {"type": "string"}});
        self.answers.push(("text/event-stream", json!({"type": "object", "properties": fields, "required": ["data"]})));
        self
    }

    pub(super) fn fails(mut self, errors: Errors) -> Self {
        self.errors = errors;
        self
    }

    fn describe(&self) -> Value {
        let content = |answers: &[(&'static str, Value)]| -> Value {
            answers.iter().map(|(kind, schema)| (kind.to_string(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
        };
        let mut answer = json!({"description": "The answer", "headers": headers()});
        if !self.answers.is_empty() {
            answer["content"] = content(&self.answers);
        }
        let mut responses = Map::from_iter([("200".to_owned(), answer)]);
        for (status, description) in self.errors.statuses() {
            let error = json!({
                "description": description,
                "headers": headers(),
                "content": {"application/json": {"schema": reference(self.errors.component())}},
            });
            responses.insert(status.to_string(), error);
        }
        let mut operation = json!({"summary": self.summary, "responses": responses});
        if let Some((_, schema)) = &self.request {
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        operation
    }
}

impl Errors {
    fn component(self) -> &'static str {
        if self == Self::Anthropic { "AnthropicError" } else { "Error" }
    }

    fn statuses(self) -> &'static [(u16, &'static str)] {
        const ALL: &[(u16, &str)] = &[
            (400, "A field cannot be served; the message names it"),
            (401, "The API key is missing or wrong"),
            (404, "There is no such model"),
            (413, "The body is too large"),
            (415, "The body is not application/json"),
            (500, "The engine failed"),
            (503, "The server drains, has stopped or has too much to do; Retry-After says when to ask again"),
        ];
        match self {
            Self::None => &[],
            Self::Unavailable => &[(503, "The engine has stopped")],
            Self::OpenAi | Self::Anthropic => ALL,
        }
    }
}

/// The schema of a type that is read from requests.
pub(super) fn reads<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Deserialize)
}

fn schema<T: JsonSchema>(contract: Contract) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.contract = contract;
        settings.meta_schema = None;
        // Each schema stands for itself, so that types of different routes may have the same name.
        settings.inline_subschemas = true;
    });
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
}

/// Answers hold nothing but what is said of them.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object) && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

fn headers() -> Value {
    json!({"x-request-id": {"description": "The request's own, or one made for it", "schema": {"type": "string"}}})
}

/// What only the running server knows: its model's names, context and vocabulary.
fn bind(schema: &mut Value, state: &ApiState) {
    let info = state.engine.info();
    let largest_id = info.vocab_size.saturating_sub(1);
    let Some(fields) = schema["properties"].as_object_mut() else { return };
    for (name, field) in fields {
        match name.as_str() {
            "model" => *field = json!({"enum": state.served_model_names}),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" | "min_tokens" => field["maximum"] = json!(info.max_model_len - 1),
            "logprobs" | "top_logprobs" | "prompt_logprobs"
                if field["type"].as_array().is_some_and(|types| types.contains(&json!("integer"))) =>
            {
                field["minimum"] = json!(0);
                field["maximum"] = json!(info.max_logprobs);
            }
            "stop_token_ids" | "allowed_token_ids" | "tokens" => {
                field["items"]["minimum"] = json!(0);
                field["items"]["maximum"] = json!(largest_id);
            }
            _ => {}
        }
    }
}

/// The whole document.
fn document(state: &ApiState) -> Value {
    let mut components: Map<String, Value> = [("Error", schema::<super::error::ErrorBody>(Contract::Serialize))]
        .into_iter()
        .chain([("AnthropicError", schema::<super::messages::ErrorBody>(Contract::Serialize))])
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let mut paths = Map::new();
    for route in routes() {
        let mut methods = Map::new();
        for operation in route.operations {
            methods.insert(operation.method.to_owned(), operation.describe());
            let request = operation.request.as_ref().map(|&(name, _)| name);
            components.extend(operation.components.into_iter().map(|(name, mut schema)| {
                if request == Some(name) {
                    bind(&mut schema, state);
                }
                (name.to_owned(), schema)
            }));
        }
        paths.insert(route.path.to_owned(), Value::Object(methods));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "TokenFlow", "version": env!("CARGO_PKG_VERSION"), "description": "An LLM serving engine with OpenAI's API in vLLM's dialect."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

pub(super) async fn serve(State(state): State<Arc<ApiState>>) -> Json<Value> {
    Json(document(&state))
}
