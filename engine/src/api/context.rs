//! What surrounds a request: its id, and the connection that it came by.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

use super::{ApiError, request_log::RequestLog};
use crate::health::Connection;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
const MAX_REQUEST_ID_LEN: usize = 128;

#[derive(Clone)]
struct RequestId(HeaderValue);

/// Takes the client's request id or makes one, and returns it with the answer.
pub(super) async fn with_request_id(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).filter(|id| is_usable(id)).cloned();
    let id = given.unwrap_or_else(new_id);
    request.extensions_mut().insert(RequestId(id.clone()));
    let log = RequestLog::new(text(&id), request.method().clone(), request.uri().path());
    request.extensions_mut().insert(Arc::clone(&log));
    let mut response = next.run(request).await;
    log.answered(response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_usable(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= MAX_REQUEST_ID_LEN && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    HeaderValue::from_str(&Uuid::new_v4().simple().to_string()).expect("hexadecimal digits")
}

fn text(id: &HeaderValue) -> String {
    String::from_utf8_lossy(id.as_bytes()).into_owned()
}

/// Handed to every route that generates.
pub(super) struct RequestContext {
    pub(super) request_id: String,
    /// `None` where the server does not sit on a TCP socket of its own, as in tests.
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) log: Option<Arc<RequestLog>>,
    /// Most time that the client gives the request, from its `X-Request-Timeout` in seconds.
    pub(super) timeout: Option<Duration>,
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = parts.extensions.get::<RequestId>().map_or_else(new_id, |id| id.0.clone());
        let extensions = &parts.extensions;
        let timeout = parts.headers.get(REQUEST_TIMEOUT).map(timeout).transpose()?;
        Ok(Self { request_id: text(&id), connection: extensions.get().cloned(), log: extensions.get().cloned(), timeout })
    }
}

fn timeout(header: &HeaderValue) -> Result<Duration, ApiError> {
    let seconds = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|time| !time.is_zero());
    time.ok_or_else(|| ApiError::field("X-Request-Timeout", "X-Request-Timeout must be a number of seconds above 0."))
}
