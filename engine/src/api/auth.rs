//! Who may use the routes under `/v1`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{ApiError, ApiState, error};

/// Whose a request is, where that is known from its head.
#[derive(Clone)]
pub(super) struct Tenant(pub(super) Arc<str>);

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// Keys, any of which opens the routes; without one, they are open.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<String>);

impl ApiKeys {
    pub fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    /// The place of a key that is given, in a time that does not tell how much of a key was right.
    fn find(&self, given: &[u8]) -> Option<u64> {
        let (mut found, mut place) = (Choice::from(0), 0);
        for (i, key) in (0u64..).zip(&self.0) {
            let is_this = key.as_bytes().ct_eq(given);
            place = u64::conditional_select(&place, &i, is_this);
            found |= is_this;
        }
        bool::from(found).then_some(place)
    }
}

/// Refuses requests under `/v1` that bring no key. Preflight requests of browsers cannot bring one.
///
/// Says whose the request is: with keys, each key is a tenant; without, clients say so themselves in `X-Tenant`.
pub(super) async fn check(State(state): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    if state.api_keys.0.is_empty() {
        let named = request.headers().get(TENANT).filter(|name| !name.is_empty());
        if let Some(name) = named.map(|name| String::from_utf8_lossy(name.as_bytes()).into()) {
            request.extensions_mut().insert(Tenant(name));
        }
        return next.run(request).await;
    }
    if let Some(place) = given(request.headers()).and_then(|key| state.api_keys.find(key)) {
        request.extensions_mut().insert(Tenant(format!("key {place}").into()));
        return next.run(request).await;
    }
    if !is_guarded(request.uri().path()) || request.method() == Method::OPTIONS {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_place_of_its_own() {
        let keys = ApiKeys::new(["one", "two", "three"].map(str::to_owned).to_vec());
        let places = ["one", "two", "three", "four", "on", ""].map(|key| keys.find(key.as_bytes()));
        assert_eq!(places, [Some(0), Some(1), Some(2), None, None, None]);
        assert_eq!(ApiKeys::default().find(b""), None);
    }
}
