//! What surrounds a request: its id, and the connection that it came by.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

use super::{ApiError, ApiState, auth::Tenant, request_log::RequestLog};
use crate::{
    engine::Origin,
    health::{ClientWord, Connection},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
const CLIENT_RTT: HeaderName = HeaderName::from_static("x-client-rtt");
/// Ten minutes: no number of milliseconds above it is a round trip.
const MAX_CLIENT_RTT_MS: f64 = 600e3;
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
    /// What the headers say of the client's link: its `X-Client-RTT` in milliseconds, and through which proxy it came.
    pub(super) client: ClientWord,
    /// Its key or its `X-Tenant`.
    tenant: Option<Arc<str>>,
}

impl RequestContext {
    /// Whose caps bind it; `user` is the body's word, which counts where the head has none. A proxy's connection is many clients'.
    pub(super) fn origin(&self, user: Option<&Arc<str>>) -> Origin {
        let connection = self.connection.as_ref().filter(|_| !self.client.proxied).map(|connection| connection.cookie);
        Origin { tenant: self.tenant.as_ref().or(user).cloned(), connection: connection.filter(|&cookie| cookie != 0) }
    }
}

impl FromRequestParts<Arc<ApiState>> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        let id = parts.extensions.get::<RequestId>().map_or_else(new_id, |id| id.0.clone());
        let extensions = &parts.extensions;
        let timeout = parts.headers.get(REQUEST_TIMEOUT).map(timeout).transpose()?;
        let tenant = extensions.get().map(|Tenant(name)| Arc::clone(name));
        let connection: Option<Arc<Connection>> = extensions.get().cloned();
        let rtt = parts.headers.get(CLIENT_RTT).map(client_rtt).transpose()?;
        let proxy = connection.as_ref().map(|connection| connection.peer.ip()).filter(|&peer| state.trusted_proxies.contains(peer));
        let origin = proxy.and_then(|peer| state.trusted_proxies.origin(peer, &parts.headers));
        let client = ClientWord { proxied: proxy.is_some(), origin, rtt, health_factor: None };
        Ok(Self { request_id: text(&id), connection, log: extensions.get().cloned(), timeout, client, tenant })
    }
}

fn client_rtt(header: &HeaderValue) -> Result<Duration, ApiError> {
    let ms = header.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok()).filter(|ms| (0.0..=MAX_CLIENT_RTT_MS).contains(ms));
    let ms = ms.ok_or_else(|| ApiError::field("X-Client-RTT", "X-Client-RTT must be a number of milliseconds, 0 to 600000."))?;
    Ok(Duration::from_secs_f64(ms / 1e3))
}

fn timeout(header: &HeaderValue) -> Result<Duration, ApiError> {
    let seconds = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|time| !time.is_zero());
    time.ok_or_else(|| ApiError::field("X-Request-Timeout", "X-Request-Timeout must be a number of seconds above 0."))
}
