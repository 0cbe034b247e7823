//! What other hosts put into Redis: a report in range that can be asked for its connections, or refused.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokenflow_hint_server::peers::{HostReport, MAX_CONNECTIONS, PeerTable};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let Ok(report) = HostReport::parse("a", bytes) else { return };
    let in_range = |share: f64| (0.0..=1.0).contains(&share);
    assert!(report.connections.len() <= MAX_CONNECTIONS && in_range(report.hint.health_factor) && in_range(report.hint.health));
    for connection in &report.connections {
        let terms = connection.terms;
        assert!([connection.health, terms.delay, terms.loss, terms.queue].into_iter().all(in_range));
        assert!(connection.token_rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
    }
    let peers: Vec<_> = report.connections.iter().map(|connection| connection.peer).collect();
    let table = PeerTable::default().after(Duration::ZERO, [report]);
    for peer in peers {
        assert!(table.by_peer(peer, Duration::from_secs(1)).is_some());
    }
});
