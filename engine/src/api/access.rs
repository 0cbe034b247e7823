//! How the routes are reached from outside: under a proxy's path, and from web pages of other origins.

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Redirect},
};
use tower::ServiceBuilder;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};

/// Settings for clients that do not come directly.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Begins with a slash and does not end with one; empty for none.
    root_path: String,
    cors: CorsLayer,
}

/// A flag's value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: '{value}' {reason}")]
pub struct AccessError {
    flag: &'static str,
    value: String,
    reason: &'static str,
}

impl AccessConfig {
    /// Each list may hold `*` alone for everything.
    ///
    /// # Errors
    /// When a list holds what is no origin, method or header name.
    pub fn new(
        root_path: Option<&str>,
        origins: &[String],
        methods: &[String],
        headers: &[String],
        allow_credentials: bool,
    ) -> Result<Self, AccessError> {
        let root_path = root_path.unwrap_or_default().trim_matches('/');
        let root_path = if root_path.is_empty() { String::new() } else { format!("/{root_path}") };
        let origins = parsed::<HeaderValue>("allowed-origins", origins, "is not an origin")?;
        let methods = parsed::<Method>("allowed-methods", methods, "is not a method")?;
        let headers = parsed::<HeaderName>("allowed-headers", headers, "is not a header's name")?;
        // Browsers take no wildcards together with credentials.
        let cors = CorsLayer::new()
            .allow_origin(match origins {
                Some(list) => AllowOrigin::list(list),
                None if allow_credentials => AllowOrigin::mirror_request(),
                None => Any.into(),
            })
            .allow_methods(match methods {
                Some(list) => AllowMethods::list(list),
                None => AllowMethods::mirror_request(),
            })
            .allow_headers(match headers {
                Some(list) => AllowHeaders::list(list),
                None => AllowHeaders::mirror_request(),
            })
            .expose_headers([HeaderName::from_static("x-request-id")])
            .allow_credentials(allow_credentials);
        Ok(Self { root_path, cors })
    }

    /// Puts the settings around the routes.
    pub fn apply(&self, router: Router) -> Router {
        let router = router.layer(self.cors.clone());
        if self.root_path.is_empty() {
            return router;
        }
        let root_path = self.root_path.clone();
        // The page's addresses are relative to a folder.
        let to_page = move |request: Request, next: Next| {
            let page = (request.uri().path() == root_path).then(|| format!("{root_path}/"));
            async move {
                match page {
                    Some(page) => Redirect::temporary(&page).into_response(),
                    None => next.run(request).await,
                }
            }
        };
        let root_path = self.root_path.clone();
        let strip = move |mut request: Request| {
            if let Some(uri) = without_prefix(request.uri(), &root_path) {
                *request.uri_mut() = uri;
            }
            request
        };
        Router::new().fallback_service(ServiceBuilder::new().map_request(strip).service(router)).layer(middleware::from_fn(to_page))
    }
}

/// `None` where the list is `*`.
fn parsed<T: std::str::FromStr>(flag: &'static str, list: &[String], reason: &'static str) -> Result<Option<Vec<T>>, AccessError> {
    if list == ["*"] {
        return Ok(None);
    }
    let parse = |value: &String| match value.parse() {
        Ok(parsed) if value != "*" => Ok(parsed),
        _ => Err(AccessError { flag, value: value.clone(), reason }),
    };
    list.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

/// The URI without the path's prefix, where it has it.
fn without_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let path = uri.path().strip_prefix(prefix).filter(|rest| rest.starts_with('/'))?;
    match uri.query() {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_whole_segment() {
        let stripped = |uri: &str| without_prefix(&uri.parse().unwrap(), "/llm").map(|uri| uri.to_string());
        assert_eq!(stripped("/llm/v1/models?x=1").as_deref(), Some("/v1/models?x=1"));
        assert_eq!(stripped("/llm/").as_deref(), Some("/"));
        assert_eq!(stripped("/llm"), None);
        assert_eq!(stripped("/llms/v1"), None);
        assert_eq!(stripped("/v1/models"), None);
    }

    #[test]
    fn a_bad_list_names_its_flag() {
        let all = || vec!["*".to_owned()];
        let error = AccessConfig::new(None, &all(), &["GE T".to_owned()], &all(), false).unwrap_err();
        assert_eq!(error.to_string(), "--allowed-methods: 'GE T' is not a method");
        let mixed = ["http://a".to_owned(), "*".to_owned()];
        assert!(AccessConfig::new(None, &mixed, &all(), &all(), false).is_err());
    }
}
