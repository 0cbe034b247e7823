//! Where a hint server listens, as a person writes it: `http://HOST:PORT`, `unix:PATH` or `none`.

use std::{fmt, path::PathBuf, str::FromStr};

/// A hint server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HintUrl {
    /// `http://HOST:PORT`, with or without `/hint` or `/hint/stream` behind it. `host` has no brackets around an IPv6 address.
    Http { host: String, port: u16 },
    /// `unix:PATH`: HTTP over a unix socket.
    Unix(PathBuf),
    /// `none`: no hint server.
    None,
}

/// Why a text is not a [`HintUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hint URL '{text}' {reason}; expected http://HOST:PORT, unix:PATH or none")]
pub struct HintUrlError {
    text: String,
    reason: &'static str,
}

impl FromStr for HintUrl {
    type Err = HintUrlError;

    fn from_str(text: &str) -> Result<Self, HintUrlError> {
        let refuse = |reason| HintUrlError { text: text.to_owned(), reason };
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(refuse("has no path")) } else { Ok(Self::Unix(path.into())) };
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(refuse(if text.starts_with("https://") {
                "asks for TLS, which hint servers do not speak"
            } else {
                "has no known scheme"
            }));
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !matches!(path.trim_end_matches('/'), "" | "/hint" | "/hint/stream") {
            return Err(refuse("has a path other than /hint"));
        }
        let (host, port) = split_authority(authority).map_err(refuse)?;
        Ok(Self::Http { host: host.to_owned(), port })
    }
}

fn split_authority(authority: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("has an unclosed bracket")?;
            (host, rest.strip_prefix(':').ok_or("has no port")?)
        }
        None => authority.rsplit_once(':').ok_or("has no port")?,
    };
    let bracketed = authority.starts_with('[');
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "@?#[]".contains(c)) || (host.contains(':') && !bracketed) {
        return Err("has no valid host");
    }
    match port.parse() {
        Ok(0) | Err(_) => Err("has a port that is not a number from 1 to 65535"),
        Ok(port) => Ok((host, port)),
    }
}

impl fmt::Display for HintUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn http(host: &str, port: u16) -> HintUrl {
        HintUrl::Http { host: host.to_owned(), port }
    }

    #[test]
    fn reads_what_people_write() {
        for text in ["http://127.0.0.1:5000", "http://127.0.0.1:5000/", "http://127.0.0.1:5000/hint", "http://127.0.0.1:5000/hint/stream"] {
            assert_eq!(text.parse(), Ok(http("127.0.0.1", 5000)), "{text}");
        }
        assert_eq!("http://[::1]:5000/hint/".parse(), Ok(http("::1", 5000)));
        assert_eq!("unix:/run/tokenflow.sock".parse(), Ok(HintUrl::Unix("/run/tokenflow.sock".into())));
        assert_eq!("unix:///run/tokenflow.sock".parse(), Ok(HintUrl::Unix("/run/tokenflow.sock".into())));
        assert_eq!("none".parse(), Ok(HintUrl::None));
    }

    #[test]
    fn says_what_is_wrong_in_one_sentence() {
        for (text, reason) in [
            ("https://hints:5000", "asks for TLS"),
            ("127.0.0.1:5000", "no known scheme"),
            ("", "no known scheme"),
            ("unix:", "no path"),
            ("http://hints", "no port"),
            ("http://hints:0", "not a number from 1"),
            ("http://hints:70000", "not a number from 1"),
            ("http://:5000", "no valid host"),
            ("http://::1:5000", "no valid host"),
            ("http://[::1:5000", "unclosed bracket"),
            ("http://me@hints:5000", "no valid host"),
            ("http://hints:5000/health", "path other than /hint"),
        ] {
            let error = text.parse::<HintUrl>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text) && !error.contains('\n'), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(http://|unix:|)?[ -~]{0,30}") {
            if let Ok(url) = text.parse::<HintUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
