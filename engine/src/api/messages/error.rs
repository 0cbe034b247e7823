use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::api::ApiError;

/// An error in Anthropic's shape.
#[derive(Debug)]
pub(in crate::api) struct MessagesError(pub(in crate::api) ApiError);

impl MessagesError {
    /// `{"type": "error", "error": {...}}`, as a body or as an event of a stream that has begun.
    pub(super) fn body(error: &ApiError) -> Value {
        let kind = match error.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        let error = ErrorObject { kind, message: error.message() };
        serde_json::to_value(ErrorBody { kind: "error", error }).unwrap_or_default()
    }
}

/// Anthropic's shape.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct ErrorBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorObject<'a>,
}

#[derive(Serialize, JsonSchema)]
struct ErrorObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

impl From<ApiError> for MessagesError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for MessagesError {
    fn into_response(self) -> Response {
        let body = Json(Self::body(&self.0));
        // Status and headers are the same in both shapes.
        let (mut parts, _) = self.0.into_response().into_parts();
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        let (body_parts, body) = body.into_response().into_parts();
        parts.headers.extend(body_parts.headers);
        Response::from_parts(parts, body)
    }
}
