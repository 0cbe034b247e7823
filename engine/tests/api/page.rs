//! The page at `/` as a browser gets it; what it does in one is tested in the workspace's `tests/`.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use tokenflow_engine::api::ApiKeys;

use crate::server::{Server, post, read, says_with};

async fn get(server: &Server, path: &str) -> (StatusCode, String, String) {
    let response = server.send(Request::get(path).body(Body::empty()).unwrap()).await;
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let headers = format!("{} {}", header("content-type"), header("content-security-policy"));
    let (status, text) = read(response).await;
    (status, headers, text)
}

/// What stands in quotes after `before`.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

#[tokio::test]
async fn the_page_is_open_where_the_api_wants_a_key_and_brings_all_that_it_names() {
    let server = says_with("x", |state| state.api_keys = ApiKeys::new(vec!["sesame".to_owned()]));
    let (status, headers, page) = get(&server, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers.starts_with("text/html; charset=utf-8 default-src 'none'; script-src 'self'"), "{headers}");
    let mut files: Vec<String> = quoted(&page, "href=\"").chain(quoted(&page, "src=\"")).map(str::to_owned).collect();
    files.retain(|file| !file.starts_with('#') && file != "data:,");
    assert!(files.contains(&"chat/chat.js".to_owned()), "{files:?}");
    while let Some(file) = files.pop() {
        assert!(!file.starts_with('/') && !file.contains("://"), "{file} is not relative");
        let (status, headers, text) = get(&server, &format!("/{file}")).await;
        assert_eq!(status, StatusCode::OK, "{file}");
        let kind = if file.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert!(headers.starts_with(kind) && !text.is_empty(), "{file}: {headers}");
        assert!(!text.contains("innerHTML"), "{file} reads text as HTML");
        files.extend(quoted(&text, "from \"./").map(|module| format!("chat/{module}")));
    }
    assert_eq!(get(&server, "/v1/models").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(server.send(post("/", "{}")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_page_can_be_left_out() {
    let server = says_with("x", |state| state.chat_page = false);
    for path in ["/", "/chat/chat.js"] {
        let (status, _, text) = get(&server, path).await;
        assert_eq!((status, text.contains("There is no route GET /")), (StatusCode::NOT_FOUND, true), "{text}");
    }
    assert_eq!(get(&server, "/v1/models").await.0, StatusCode::OK);
}
