use axum::{
    body::Body,
    http::{Request, Response, StatusCode},
};
use serde_json::{Value, json};
use tokenflow_engine::api::{AccessConfig, ApiKeys};
use tower::ServiceExt;

use crate::server::{post, read, says, says_with};

fn keyed(path: &str, header: &str, value: &str) -> Request<Body> {
    let mut request = post(path, json!({"max_tokens": 1, "prompt": "p", "messages": [{"role": "user", "content": "p"}]}).to_string());
    request.headers_mut().insert(axum::http::HeaderName::try_from(header).unwrap(), value.parse().unwrap());
    request
}

#[tokio::test]
async fn routes_under_v1_want_a_key() {
    let server = says_with("x", |state| state.api_keys = ApiKeys::new(vec!["one".to_owned(), "two".to_owned()]));
    let status = async |request| server.send(request).await.status();
    for (header, value) in [("authorization", "Bearer one"), ("authorization", "bearer two"), ("x-api-key", "one")] {
        assert_eq!(status(keyed("/v1/completions", header, value)).await, StatusCode::OK, "{header} {value}");
        assert_eq!(status(keyed("/v1/messages", header, value)).await, StatusCode::OK, "{header} {value}");
    }
    for (header, value) in [("authorization", "Bearer three"), ("authorization", "Bearer on"), ("authorization", "one"), ("x-other", "one")]
    {
        assert_eq!(status(keyed("/v1/completions", header, value)).await, StatusCode::UNAUTHORIZED, "{header} {value}");
    }
    assert_eq!(server.get("/health").await.0, StatusCode::OK);

    let response = server.send(keyed("/v1/completions", "x-request-id", "mine")).await;
    assert_eq!(
        (&response.headers()["www-authenticate"], &response.headers()["x-request-id"]),
        (&"Bearer".parse().unwrap(), &"mine".parse().unwrap())
    );
    let error: Value = serde_json::from_str(&read(response).await.1).unwrap();
    assert_eq!((&error["error"]["type"], &error["error"]["code"]), (&json!("AuthenticationError"), &json!(401)));
    let (_, text) = read(server.send(keyed("/v1/messages", "x-api-key", "no")).await).await;
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("authentication_error")));
}

async fn send(access: &AccessConfig, request: Request<Body>) -> Response<Body> {
    access.apply(says("x").router).oneshot(request).await.unwrap()
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

#[tokio::test]
async fn a_proxys_path_may_be_left_on() {
    let access = AccessConfig::new(Some("/llm/"), &list(&["*"]), &list(&["*"]), &list(&["*"]), false).unwrap();
    for (path, expected) in [("/llm/v1/models", 200), ("/v1/models", 200), ("/llm", 307), ("/llm/", 200), ("/llmv1/models", 404)] {
        let response = send(&access, Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), expected, "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_where_they_are_let() {
    let preflight = |origin: &str| {
        let request = Request::options("/v1/models").header("origin", origin).header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization").body(Body::empty()).unwrap()
    };
    let open = AccessConfig::new(None, &list(&["*"]), &list(&["*"]), &list(&["*"]), false).unwrap();
    let response = send(&open, preflight("http://a")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["access-control-allow-headers"], "authorization");
    let some = AccessConfig::new(None, &list(&["http://a"]), &list(&["GET"]), &list(&["*"]), true).unwrap();
    assert_eq!(send(&some, preflight("http://a")).await.headers()["access-control-allow-origin"], "http://a");
    assert_eq!(send(&some, preflight("http://b")).await.headers().get("access-control-allow-origin"), None);
}
