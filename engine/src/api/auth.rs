//! Who may use the routes under `/v1`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::{Choice, ConstantTimeEq};

use super::{ApiError, ApiState, error};

/// Keys, any of which opens the routes; without one, they are open.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<String>);

impl ApiKeys {
    pub fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    /// In a time that does not tell how much of a key was right.
    fn accept(&self, given: &[u8]) -> bool {
        self.0.iter().fold(Choice::from(0), |found, key| found | key.as_bytes().ct_eq(given)).into()
    }
}

/// Refuses requests under `/v1` that bring no key. Preflight requests of browsers cannot bring one.
pub(super) async fn check(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let is_open = state.api_keys.0.is_empty() || !is_guarded(request.uri().path()) || request.method() == Method::OPTIONS;
    if is_open || given(request.headers()).is_some_and(|key| state.api_keys.accept(key)) {
        return next.run(request).await;
    }
    let message = "The API key is missing or wrong: send it as `Authorization: Bearer KEY`, or `x-api-key: KEY` for Anthropic's clients.";
    let mut response = error::shaped(request.uri().path(), ApiError::new(StatusCode::UNAUTHORIZED, message)).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn is_guarded(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

fn given(headers: &HeaderMap) -> Option<&[u8]> {
    const BEARER: &[u8] = b"bearer ";
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(|value| {
        let (scheme, key) = value.split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER).then_some(key)
    });
    bearer.or_else(|| Some(headers.get("x-api-key")?.as_bytes()))
}
