//! Which `Host` a request may name. A page from elsewhere whose name is made to resolve to this host (DNS rebinding) gets the browser to
//! connect, but cannot hide the name that it connects by; whoever writes an address or `localhost` is not such a page.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// Names beside `localhost` and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// # Errors
    /// When one is not a host's name; with or without a port makes no difference.
    pub fn new(names: &[String]) -> anyhow::Result<Self> {
        let name = |name: &String| {
            let authority = name.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
            let host = authority.map(|authority| normal(authority.host()));
            host.ok_or_else(|| anyhow::anyhow!("--allow-host '{name}': not a host's name"))
        };
        names.iter().map(name).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Whether a request that names this host is answered; one that names none comes from no browser.
    pub fn admits(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut named =
            headers.get_all(header::HOST).iter().map(|value| value.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
        let target = uri.authority().map(|authority| Some(authority.clone()));
        named.by_ref().chain(target).all(|authority| authority.is_some_and(|authority| self.admits_name(authority.host())))
    }

    fn admits_name(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = normal(host);
        bare.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost") || self.0.contains(&host)
    }
}

/// Names differ neither by case nor by the root's dot.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn admits(allowed: &AllowedHosts, host: &[u8]) -> bool {
        let Ok(value) = HeaderValue::from_bytes(host) else { return false };
        allowed.admits(&Uri::from_static("/hint"), &HeaderMap::from_iter([(header::HOST, value)]))
    }

    #[test]
    fn addresses_and_named_hosts_are_admitted() {
        let allowed = AllowedHosts::new(&["Hints.example.org".to_owned(), "gw:5000".to_owned()]).unwrap();
        for host in
            ["127.0.0.1:5000", "[::1]:5000", "192.0.2.7", "localhost", "LOCALHOST:5000", "a.localhost", "hints.example.org.:80", "gw"]
        {
            assert!(admits(&allowed, host.as_bytes()), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "hints.example.org.evil", "user@evil", "a b", "", "\u{fc}"]
        {
            assert!(!admits(&allowed, host.as_bytes()), "{host}");
        }
        assert!(allowed.admits(&Uri::from_static("/hint"), &HeaderMap::new()), "no browser leaves it out");
        assert!(!allowed.admits(&Uri::from_static("http://evil.example/hint"), &HeaderMap::new()));
        assert!(AllowedHosts::new(&["a b".to_owned()]).unwrap_err().to_string().contains("--allow-host"));
    }

    proptest! {
        #[test]
        fn no_other_name_is_admitted(host in "[a-z]{1,8}(\\.[a-z]{2,8}){1,3}(:[0-9]{1,5})?") {
            prop_assume!(!host.contains("localhost"));
            prop_assert!(!admits(&AllowedHosts::default(), host.as_bytes()));
        }

        #[test]
        fn any_bytes_are_answered(host in prop::collection::vec(any::<u8>(), 0..40)) {
            admits(&AllowedHosts::default(), &host);
        }
    }
}
