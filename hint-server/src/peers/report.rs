//! One host's word: the value of its key in Redis, JSON.

use serde::{Deserialize, Serialize};
use tokenflow_hint_api::{Connection, Hint};

/// Changes with the meaning of the fields.
const VERSION: u32 = 1;
/// A report holds at most so many connections; of more, those in trouble come first.
pub const MAX_CONNECTIONS: usize = 4096;
/// No report of so many connections is longer.
pub(super) const MAX_BYTES: usize = 4 << 20;
const MAX_HOST_BYTES: usize = 253;

/// What a host knows of its own connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    version: u32,
    pub host: String,
    /// Differs from one run of the server to the next.
    pub run: u64,
    /// Counts up; a report that was read before proves nothing new.
    pub seq: u64,
    pub hint: Hint,
    /// How many there are; [`Self::connections`] may be fewer.
    pub tracked: u64,
    pub connections: Vec<Connection>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it is not a report: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has version {0}; this program reads version {VERSION}")]
    Version(u32),
    #[error("it is signed by '{0}'")]
    OtherHost(String),
}

impl HostReport {
    /// Of `tracked` connections the [`MAX_CONNECTIONS`] that matter most, first of them first.
    pub fn new(host: &str, run: u64, seq: u64, hint: Hint, tracked: u64, mut connections: Vec<Connection>) -> Self {
        connections.truncate(MAX_CONNECTIONS);
        Self { version: VERSION, host: host.to_owned(), run, seq, hint, tracked, connections }
    }

    /// Reads what `host` is said to have written. Numbers out of range are brought into it, since a hint may not do more than slow down.
    ///
    /// # Errors
    /// When it is no report of that host, or too long a one.
    pub fn parse(host: &str, bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReportError::TooLong);
        }
        let mut report: Self = serde_json::from_slice(bytes)?;
        if report.version != VERSION {
            return Err(ReportError::Version(report.version));
        }
        if report.host != host {
            return Err(ReportError::OtherHost(report.host.chars().take(MAX_HOST_BYTES).collect()));
        }
        report.connections.truncate(MAX_CONNECTIONS);
        for connection in &mut report.connections {
            connection.health = share(connection.health);
            let terms = &mut connection.terms;
            (terms.delay, terms.loss, terms.queue) = (share(terms.delay), share(terms.loss), share(terms.queue));
            connection.token_rate = rate(connection.token_rate);
        }
        let hint = &mut report.hint;
        (hint.health_factor, hint.health) = (share(hint.health_factor), share(hint.health));
        hint.token_rate = rate(hint.token_rate);
        Ok(report)
    }

    /// Leaves the first `most` connections, those in most trouble, and gives back the memory of the others.
    pub(super) fn shorten(&mut self, most: usize) {
        self.connections.truncate(most);
        self.connections.shrink_to_fit();
    }

    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, strings and addresses have a JSON form")
    }
}

/// Whether a name may be a host's: letters, digits, dots, hyphens, underscores.
pub(super) fn is_host_name(name: &str) -> bool {
    (1..=MAX_HOST_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

fn share(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, 1.0) } else { 1.0 }
}

fn rate(value: Option<f64>) -> Option<f64> {
    value.filter(|rate| rate.is_finite() && *rate >= 0.0)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*};
    use tokenflow_hint_api::{HintMetrics, Source, Terms};

    use super::*;

    pub(crate) fn connection(cookie: u64, health: f64) -> Connection {
        Connection {
            cookie,
            local: "192.0.2.1:8000".parse().unwrap(),
            peer: std::net::SocketAddr::from(([198, 51, 100, (cookie >> 16) as u8], cookie as u16)),
            health,
            terms: Terms { delay: 1.0, loss: 1.0, queue: health },
            token_rate: None,
            srtt_us: 900,
            min_rtt_us: 600,
            retransmits: 0,
            undelivered_bytes: 0,
            delivery_rate_bytes_per_s: 0,
            age_ms: 20,
            source: Source::Ebpf,
        }
    }

    pub(crate) fn hint() -> Hint {
        Hint {
            health_factor: 1.0,
            health: 1.0,
            token_rate: None,
            metrics: HintMetrics::default(),
            source: Source::Ebpf,
            connections: 1,
            age_ms: 0,
            seq: 1,
        }
    }

    #[test]
    fn the_largest_report_is_not_too_long() {
        let longest = |cookie| Connection {
            cookie: u64::MAX - cookie,
            local: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap(),
            peer: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap(),
            token_rate: Some(f64::MIN_POSITIVE),
            retransmits: u64::MAX,
            undelivered_bytes: u64::MAX,
            delivery_rate_bytes_per_s: u64::MAX,
            age_ms: u64::MAX,
            ..connection(cookie, 1.0 / 3.0)
        };
        let report = HostReport::new("a", 1, 1, hint(), 9000, (0..9000).map(longest).collect());
        assert_eq!((report.connections.len(), report.tracked), (MAX_CONNECTIONS, 9000));
        assert!(report.json().len() < MAX_BYTES, "{}", report.json().len());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let report = HostReport::new("a", 1, 1, hint(), 2, vec![connection(1, 0.5)]);
        assert_eq!(HostReport::parse("a", &report.json()).unwrap(), report);
        assert!(matches!(HostReport::parse("b", &report.json()), Err(ReportError::OtherHost(host)) if host == "a"));
        let newer = serde_json::to_vec(&HostReport { version: 2, ..report }).unwrap();
        assert!(matches!(HostReport::parse("a", &newer), Err(ReportError::Version(2))));
        assert!(matches!(HostReport::parse("a", b"{}"), Err(ReportError::Json(_))));
        assert!(matches!(HostReport::parse("a", &vec![b' '; MAX_BYTES + 1]), Err(ReportError::TooLong)));
    }

    #[test]
    fn host_names_are_plain() {
        assert!(["a", "gw-1.example.org", "A_9"].iter().all(|name| is_host_name(name)));
        assert!(["", "a b", "a\n", "ü", "a:b", "a*", &"x".repeat(254)].iter().all(|name| !is_host_name(name)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_report_in_range_or_refused(bytes in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _ = HostReport::parse("a", &bytes);
            let mut text = HostReport::new("a", 1, 1, hint(), 2, vec![connection(1, 0.5), connection(2, 1.0)]).json();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(report) = HostReport::parse("a", &text) {
                prop_assert!(report.connections.iter().all(|c| (0.0..=1.0).contains(&c.health)));
            }
            let _ = HostReport::parse("a", &text[..at]);
        }

        #[test]
        fn any_number_comes_into_range(health in any::<f64>(), term in -1e300..1e300f64, tokens in any::<f64>()) {
            let mut sick = connection(1, health);
            (sick.terms.delay, sick.token_rate) = (term, Some(tokens));
            // What has no JSON form cannot be written.
            let Ok(text) = serde_json::to_vec(&HostReport::new("a", 1, 1, hint(), 2, vec![sick])) else { return Ok(()) };
            let Ok(report) = HostReport::parse("a", &text) else { return Ok(()) };
            let read = &report.connections[0];
            prop_assert!((0.0..=1.0).contains(&read.health) && (0.0..=1.0).contains(&read.terms.delay));
            prop_assert!(read.token_rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
        }
    }
}
