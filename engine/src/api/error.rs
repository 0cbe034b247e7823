//! Refusals and failures in OpenAI's error shape, with vLLM's names.

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{engine::EngineError, tokenizer::TokenizerError};

/// An answer that is not the one asked for: a status and one sentence, with the field it is about where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<String>,
    /// With 503: when to come again.
    retry_after_s: u64,
}

impl ApiError {
    /// 400 about a field.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param: Some(param.into()), retry_after_s: 1 }
    }

    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, retry_after_s: 1 }
    }

    pub fn model_not_found(model: &str, served: &[String]) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("The model `{model}` does not exist. Valid aliases: {}.", served.join(", ")),
            param: Some("model".to_owned()),
            retry_after_s: 1,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// With another name for a field, for routes that are converted to others.
    pub(super) fn renamed(mut self, from: &str, to: &str) -> Self {
        let rest = self.param.as_deref().and_then(|param| param.strip_prefix(from));
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])) {
            self.param = Some(format!("{to}{rest}"));
            self.message = self.message.replace(from, to);
        }
        self
    }

    /// `{"error": {...}}`, as a body or as an event of a stream that has begun.
    pub fn body(&self) -> Value {
        let error = ErrorObject { message: &self.message, kind: self.kind(), param: self.param.as_deref(), code: self.status.as_u16() };
        serde_json::to_value(ErrorBody { error }).unwrap_or_default()
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "BadRequestError",
            StatusCode::UNAUTHORIZED => "AuthenticationError",
            StatusCode::NOT_FOUND => "NotFoundError",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowedError",
            StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLargeError",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaTypeError",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
            StatusCode::GATEWAY_TIMEOUT => "TimeoutError",
            _ => "InternalServerError",
        }
    }
}

/// OpenAI's shape.
#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize, JsonSchema)]
struct ErrorObject<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field that it is about, where there is one.
    param: Option<&'a str>,
    /// The HTTP status.
    code: u16,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s));
        }
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = match error {
            EngineError::Draining | EngineError::Stopped(_) | EngineError::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            EngineError::Step(_) => StatusCode::INTERNAL_SERVER_ERROR,
            EngineError::TooLong(_) | EngineError::TooMany(_) | EngineError::WrongTask(_) => StatusCode::BAD_REQUEST,
        };
        let retry_after_s = if let EngineError::Overloaded { retry_after, .. } = &error { retry_after.as_secs().max(1) } else { 1 };
        let param = matches!(error, EngineError::TooMany(_)).then(|| "n".to_owned());
        Self { retry_after_s, param, ..Self::new(status, error.to_string()) }
    }
}

impl From<TokenizerError> for ApiError {
    fn from(error: TokenizerError) -> Self {
        let mut message = error.to_string();
        if let Some(first) = message.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        match error {
            TokenizerError::Render(_) => Self::field("messages", message),
            _ => Self::new(StatusCode::BAD_REQUEST, message),
        }
    }
}

pub(super) async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("There is no route {method} {}", uri.path()))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    shaped(uri.path(), ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path())))
}

/// The error as the clients of `path` know it.
pub(super) fn shaped(path: &str, error: ApiError) -> Response {
    if path.starts_with("/v1/messages") { super::messages::MessagesError(error).into_response() } else { error.into_response() }
}
