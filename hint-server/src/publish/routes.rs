//! The HTTP routes.

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;
use serde_json::json;
use tokenflow_hint_api::{Connection, Hint};

use super::{Feed, Update, metrics};

/// Readers take two seconds of silence for a dead server.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

pub fn router(feed: Arc<Feed>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/hint", get(hint))
        .route("/hint/stream", get(hint_stream))
        .route("/connections", get(connections))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { ApiError(StatusCode::NOT_FOUND, "no such route; see /hint, /hint/stream, /connections, /metrics".to_owned()) })
        .method_not_allowed_fallback(|| async { ApiError(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here".to_owned()) })
        .with_state(feed)
}

async fn hint(
    State(feed): State<Arc<Feed>>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Result<Json<Hint>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError(rejection.status(), rejection.body_text()))?;
    if query.is_empty() {
        return Ok(Json(feed.hint()));
    }
    let (tracker, now) = (feed.tracker(), feed.now());
    let connection = match (query.get("cookie"), query.get("peer")) {
        (None, None) => return Ok(Json(feed.hint())),
        (Some(_), Some(_)) => return Err(ApiError::bad_request("give either 'cookie' or 'peer', not both")),
        (Some(cookie), None) => {
            let cookie = cookie.parse().map_err(|_| ApiError::bad_request(format!("'cookie' is '{cookie}', not a socket cookie")))?;
            tracker.by_cookie(cookie, now).ok_or_else(|| ApiError::unknown(format!("no connection with cookie {cookie}")))?
        }
        (None, Some(peer)) => {
            let address: SocketAddr =
                peer.parse().map_err(|_| ApiError::bad_request(format!("'peer' is '{peer}', not an address IP:PORT")))?;
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            tracker.by_peer(address, now).ok_or_else(|| ApiError::unknown(format!("no connection from {address}")))?
        }
    };
    Ok(Json(tracker.hint_of(&connection)))
}

async fn connections(State(feed): State<Arc<Feed>>) -> Json<Vec<Connection>> {
    Json(feed.tracker().connections(feed.now()))
}

async fn hint_stream(State(feed): State<Arc<Feed>>) -> impl IntoResponse {
    let events = stream::unfold(feed.subscribe(), |mut subscription| async move {
        let event = match subscription.next().await? {
            Update::Snapshot(data) => Event::default().event("snapshot").data(data),
            Update::Change(data) => Event::default().event("change").data(data),
        };
        Some((Ok::<_, Infallible>(event), subscription))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
}

async fn metrics(State(feed): State<Arc<Feed>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&feed))
}

/// `{"error": {"message": ...}}`.
struct ApiError(StatusCode, String);

impl ApiError {
    fn bad_request(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": { "message": self.1 } }))).into_response()
    }
}
