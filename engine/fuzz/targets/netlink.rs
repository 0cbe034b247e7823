//! Answers of socket diagnostics, and the health that the looks in them come to: a number in range, whatever the kernel says.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokenflow_hint_server::probe::sock_diag::wire::{Message, messages};
use tokenflow_score::{ConnectionScore, parse_tcp_info};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let (mut score, mut at) = (ConnectionScore::new(), Duration::ZERO);
    let mut see = |info: tokenflow_score::TcpInfo, undelivered_bytes: u64| {
        at += Duration::from_millis(50);
        score.observe(&info.measurement(at, undelivered_bytes));
        assert!((0.0..=1.0).contains(&score.health(at)) && (0.0..=1.0).contains(&score.terms().least()));
        assert!(score.token_rate(220.0).is_none_or(|rate| rate.is_finite() && rate >= 0.0));
    };
    let _ = messages(bytes, 7, |message| {
        if let Message::Socket(socket) = message {
            assert_eq!(socket.identity.peer.ip(), socket.identity.peer.ip().to_canonical(), "mapped addresses are IPv4");
            see(socket.info, socket.undelivered_bytes.into());
        }
    });
    if let Some(info) = parse_tcp_info(bytes) {
        see(info, 1000);
    }
});
