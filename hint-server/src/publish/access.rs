//! Who may read what. Everything on the unix socket (its file's mode decides) and with the token; on loopback everything where no token is
//! set, and all but addresses where one is; elsewhere nothing without the token. The static page and `/healthz` tell nothing and are open.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokenflow_hint_api::Connection;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Unix,
    Tcp(IpAddr),
}

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Full,
    /// Everything but addresses.
    Blind,
}

impl Reader {
    /// As this reader may see it.
    pub fn view(self, connection: Connection) -> Connection {
        let hidden = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        match self {
            Self::Full => connection,
            Self::Blind => Connection { local: hidden, peer: hidden, ..connection },
        }
    }
}

/// The token, if one is set.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<String>,
}

/// A shorter token could be guessed.
const LEAST_TOKEN: usize = 16;

impl Access {
    /// # Errors
    /// When the token is too short, or holds what no header can.
    pub fn with_token(token: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(token.len() >= LEAST_TOKEN, "the token is shorter than {LEAST_TOKEN} characters");
        anyhow::ensure!(token.bytes().all(|byte| byte.is_ascii_graphic()), "the token holds other than printable ASCII characters");
        Ok(Self { token: Some(token.to_owned()) })
    }

    /// Whether readers elsewhere than on this host can get in at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// What this reader may see, by the `Authorization` header; `None` for nothing. A wrong token is refused everywhere.
    pub fn reader(&self, origin: Origin, authorization: Option<&str>) -> Option<Reader> {
        if origin == Origin::Unix {
            return Some(Reader::Full);
        }
        let is_loopback = matches!(origin, Origin::Tcp(ip) if ip.to_canonical().is_loopback());
        match (&self.token, authorization) {
            (Some(token), Some(said)) => {
                let (scheme, said) = said.split_once(' ')?;
                (scheme.eq_ignore_ascii_case("bearer") && same(said.trim(), token)).then_some(Reader::Full)
            }
            (Some(_), None) => is_loopback.then_some(Reader::Blind),
            (None, _) => is_loopback.then_some(Reader::Full),
        }
    }
}

/// Takes as long for the first wrong byte as for the last.
fn same(said: &str, token: &str) -> bool {
    said.len() == token.len() && said.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACED: &str = "correct horse battery";
    const GOOD: &str = "correct-horse-battery";

    #[test]
    fn each_reader_sees_what_it_may() {
        let (open, guarded) = (Access::default(), Access::with_token(GOOD).unwrap());
        let tcp = |ip: &str| Origin::Tcp(ip.parse().unwrap());
        let bearer = format!("Bearer {GOOD}");
        let good = Some(bearer.as_str());
        for (access, origin, header, sees) in [
            (&open, Origin::Unix, None, Some(Reader::Full)),
            (&open, tcp("127.0.0.1"), None, Some(Reader::Full)),
            (&open, tcp("::1"), None, Some(Reader::Full)),
            (&open, tcp("::ffff:127.0.0.1"), good, Some(Reader::Full)),
            (&open, tcp("192.0.2.1"), None, None),
            (&open, tcp("192.0.2.1"), good, None),
            (&guarded, Origin::Unix, None, Some(Reader::Full)),
            (&guarded, tcp("127.0.0.1"), None, Some(Reader::Blind)),
            (&guarded, tcp("127.0.0.1"), good, Some(Reader::Full)),
            (&guarded, tcp("127.0.0.1"), Some("Bearer wrong"), None),
            (&guarded, tcp("192.0.2.1"), None, None),
            (&guarded, tcp("192.0.2.1"), good, Some(Reader::Full)),
            (&guarded, tcp("192.0.2.1"), Some("Bearer correct-horse-batterz"), None),
            (&guarded, tcp("192.0.2.1"), Some("Basic correct-horse-battery"), None),
            (&guarded, tcp("192.0.2.1"), Some(GOOD), None),
        ] {
            assert_eq!(access.reader(origin, header), sees, "{origin:?} {header:?}");
        }
    }

    #[test]
    fn tokens_that_guard_nothing_are_refused() {
        assert!(Access::with_token("short").is_err());
        assert!(Access::with_token(SPACED).is_err());
        assert!(!Access::default().has_token());
    }
}
