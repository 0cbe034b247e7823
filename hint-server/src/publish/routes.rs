//! The HTTP routes.

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokenflow_hint_api::Connection;

use super::{App, Origin, Reader, Update, dashboard, metrics};

/// Readers take two seconds of silence for a dead server.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

type Parameters = Result<Query<HashMap<String, String>>, QueryRejection>;

/// For TCP; serve it with the peers' addresses ([`Router::into_make_service_with_connect_info`]), without which nobody may read.
pub fn router(app: App) -> Router {
    open_routes().merge(guarded_routes(app).layer(from_fn(from_tcp)))
}

/// For the unix socket, whose readers its file's mode chose.
pub fn unix_router(app: App) -> Router {
    open_routes().merge(guarded_routes(app).layer(Extension(Origin::Unix)))
}

/// These tell nothing.
fn open_routes() -> Router {
    dashboard::routes()
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { ApiError(StatusCode::NOT_FOUND, "no such route; see /hint, /hint/stream, /connections, /metrics".to_owned()) })
        .method_not_allowed_fallback(|| async { ApiError(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here".to_owned()) })
}

fn guarded_routes(app: App) -> Router {
    Router::new()
        .route("/hint", get(hint))
        .route("/hint/stream", get(hint_stream))
        .route("/connections", get(connections))
        .route("/hosts", get(hosts))
        .route("/history", get(history))
        .route("/experiments", get(experiments))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(|| async { ApiError(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here".to_owned()) })
        .layer(from_fn_with_state(app.clone(), authorise))
        .with_state(app)
}

async fn from_tcp(mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if let Some(ip) = address {
        request.extensions_mut().insert(Origin::Tcp(ip));
    }
    next.run(request).await
}

async fn authorise(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let reader = request.extensions().get::<Origin>().and_then(|&origin| app.access.reader(origin, authorization));
    let Some(reader) = reader else {
        return unauthorised(if app.access.has_token() {
            "this needs the hint server's token: 'Authorization: Bearer TOKEN'"
        } else {
            "hints are for this host alone; start the hint server with --token-file to let others in"
        });
    };
    let is_trusted = request.extensions().get::<Origin>() == Some(&Origin::Unix) || (app.access.has_token() && authorization.is_some());
    if !is_trusted && !app.hosts.admits(request.uri(), request.headers()) {
        let help = "ask by address or as localhost, start the hint server with --allow-host for another name, or send its token";
        // Where there is a token the page asks for it, whatever name it was found by.
        return if app.access.has_token() { unauthorised(help) } else { ApiError(StatusCode::FORBIDDEN, help.to_owned()).into_response() };
    }
    request.extensions_mut().insert(reader);
    next.run(request).await
}

fn unauthorised(help: &str) -> Response {
    let mut response = ApiError(StatusCode::UNAUTHORIZED, help.to_owned()).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn hint(State(app): State<App>, Extension(reader): Extension<Reader>, query: Parameters) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let feed = &app.feed;
    match (query.get("cookie"), query.get("peer")) {
        (None, None) => Ok(Json(feed.hint()).into_response()),
        (Some(_), Some(_)) => Err(ApiError::bad_request("give either 'cookie' or 'peer', not both")),
        (Some(cookie), None) => {
            let cookie = cookie.parse().map_err(|_| ApiError::bad_request(format!("'cookie' is '{cookie}', not a socket cookie")))?;
            let (tracker, now) = (feed.tracker(), feed.now());
            let found = tracker.by_cookie(cookie, now).ok_or_else(|| ApiError::unknown(format!("no connection with cookie {cookie}")))?;
            Ok(Json(tracker.hint_of(&found)).into_response())
        }
        (None, Some(_)) if reader == Reader::Blind => {
            Err(ApiError(StatusCode::FORBIDDEN, "asking by address needs the hint server's token".to_owned()))
        }
        (None, Some(peer)) => by_peer(&app, peer),
    }
}

/// Our own connection, else another host's, which the answer's header then names.
fn by_peer(app: &App, peer: &str) -> Result<Response, ApiError> {
    let address: SocketAddr = peer.parse().map_err(|_| ApiError::bad_request(format!("'peer' is '{peer}', not an address IP:PORT")))?;
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let (tracker, now) = (app.feed.tracker(), app.feed.now());
    if let Some(found) = tracker.by_peer(address, now) {
        return Ok(Json(tracker.hint_of(&found)).into_response());
    }
    let table = app.share.as_ref().map(|share| share.table());
    let Some((host, found)) = table.as_ref().and_then(|table| table.by_peer(address, now)) else {
        return Err(ApiError::unknown(format!("no connection from {address}")));
    };
    Ok(([("x-tokenflow-host", host)], Json(tracker.hint_of(&found))).into_response())
}

/// All in the order of their cookies; with `limit` so many of those in most trouble; with `host` another host's.
async fn connections(
    State(app): State<App>,
    Extension(reader): Extension<Reader>,
    query: Parameters,
) -> Result<Json<Vec<Connection>>, ApiError> {
    let Query(query) = query?;
    let now = app.feed.now();
    let limit: Option<usize> = match query.get("limit") {
        None => None,
        Some(limit) => Some(limit.parse().map_err(|_| ApiError::bad_request(format!("'limit' is '{limit}', not a number")))?),
    };
    let own = |host: &String| app.share.as_ref().is_none_or(|share| share.host == *host);
    let all = match query.get("host") {
        Some(host) if app.share.is_none() || !own(host) => {
            let table = app.share.as_ref().map(|share| share.table());
            let remote = table.as_ref().and_then(|table| table.host(host, now));
            let remote = remote.ok_or_else(|| ApiError::unknown(format!("no host '{host}' is known")))?;
            remote.connections(now).take(limit.unwrap_or(usize::MAX)).collect()
        }
        _ => match limit {
            None => app.feed.tracker().connections(now),
            Some(limit) => app.feed.tracker().worst(now, limit),
        },
    };
    Ok(Json(all.into_iter().map(|connection| reader.view(connection)).collect()))
}

/// This host first, then the others that are known.
async fn hosts(State(app): State<App>) -> Json<Vec<Value>> {
    let now = app.feed.now();
    let name = app.share.as_ref().map(|share| share.host.as_str());
    let ours = json!({ "host": name, "own": true, "age_ms": 0, "tracked": app.feed.tracker().len(), "hint": app.feed.hint() });
    let mut all = vec![ours];
    if let Some(share) = &app.share {
        all.extend(share.table().hosts(now).map(|remote| {
            let report = &remote.report;
            let age_ms = remote.age(now).as_millis() as u64;
            json!({ "host": report.host, "own": false, "age_ms": age_ms, "tracked": report.tracked, "hint": report.hint })
        }));
    }
    Json(all)
}

async fn hint_stream(State(app): State<App>, Extension(reader): Extension<Reader>) -> impl IntoResponse {
    let events = stream::unfold(app.feed.subscribe(), move |mut subscription| async move {
        let event = match subscription.next().await? {
            Update::Snapshot(told) => Event::default().event("snapshot").data(told.json(reader)),
            Update::Change(told) => Event::default().event("change").data(told.json(reader)),
        };
        Some((Ok::<_, Infallible>(event), subscription))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
}

/// The last ten minutes, or what came `after` a sample's number.
async fn history(State(app): State<App>, query: Parameters) -> Result<Json<Value>, ApiError> {
    let Query(query) = query?;
    let after = match query.get("after") {
        None => 0,
        Some(after) => after.parse().map_err(|_| ApiError::bad_request(format!("'after' is '{after}', not a number")))?,
    };
    let samples = app.feed.history().after(after);
    Ok(Json(json!({ "now_ms": app.feed.now().as_millis() as u64, "engine": app.engine.is_some(), "samples": samples })))
}

async fn experiments(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.experiments.to_string())
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&app))
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

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": { "message": self.1 } }))).into_response()
    }
}
