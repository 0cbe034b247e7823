//! Where an OpenAI server is, and the HTTP client that goes there. The URL is checked when the command line is parsed, so
//! that a typing error is reported before anything runs.

use std::str::FromStr;
use std::time::Duration;

use reqwest::{Client, Url};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

impl FromStr for Endpoint {
    type Err = String;

    /// With or without `/v1` (people paste both), with or without `http://`.
    fn from_str(text: &str) -> Result<Self, String> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&with_scheme).map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        match url.scheme() {
            "http" => {
                let path = url.path().trim_end_matches('/');
                let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
                url.set_path(&path);
                Ok(Self(url))
            }
            "https" => Err("https is not built in; use http, or a local proxy that adds TLS".to_owned()),
            other => Err(format!("`{other}` is not a scheme that this client speaks; use http")),
        }
    }
}

impl Endpoint {
    /// # Errors
    /// Only where reqwest cannot start, which it says.
    pub fn client(&self) -> reqwest::Result<Client> {
        let builder = Client::builder().connect_timeout(Duration::from_secs(10)).tcp_keepalive(Duration::from_secs(30)).tcp_nodelay(true);
        if self.is_loopback() { builder.no_proxy() } else { builder }.build()
    }

    /// The URL of a route; `path` starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    fn is_loopback(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn servers_are_named_with_and_without_their_suffix() {
        for text in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", "h:1"] {
            assert_eq!(endpoint(text).url("/v1/models"), "http://h:1/v1/models", "{text}");
        }
        assert_eq!(endpoint("http://gateway/team/v1").url("/v1/models"), "http://gateway/team/v1/models");
    }

    #[test]
    fn what_is_no_url_is_refused_in_one_sentence() {
        for text in ["", "http://", "https://h", "ftp://h", "http://h:99999"] {
            let message = text.parse::<Endpoint>().unwrap_err();
            assert!(!message.is_empty() && !message.contains('\n'), "{text}: {message}");
        }
    }

    #[test]
    fn a_proxy_is_never_between_us_and_this_host() {
        for text in ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:1"] {
            assert!(endpoint(text).is_loopback(), "{text}");
        }
        assert!(!endpoint("http://10.0.0.1:1").is_loopback());
    }
}
