use proptest::{collection::vec, prelude::*};
use tokenflow_score::Measurement;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn look(cookie: u64, at_ms: u64, measurement: Measurement) -> Look {
    let peer = SocketAddr::from(([192, 0, 2, 2], 40_000 + cookie as u16));
    Look {
        identity: Identity { cookie, local: "192.0.2.1:8000".parse().unwrap(), peer },
        measurement: Measurement { at: ms(at_ms), ..measurement },
        source: Source::SockDiag,
    }
}

/// A stream of 220-byte chunks, fifty a second, over a good link.
fn healthy(cookie: u64, at_ms: u64) -> Look {
    look(
        cookie,
        at_ms,
        Measurement { srtt_us: 100, min_rtt_us: 60, bytes_acked: at_ms * 11, data_segs_out: at_ms / 20, ..Default::default() },
    )
}

/// The same over a link that carries 4 KB/s and has a standing queue.
fn congested(cookie: u64, at_ms: u64) -> Look {
    let measurement =
        Measurement { srtt_us: 800_000, min_rtt_us: 60, bytes_acked: at_ms * 4, undelivered_bytes: 3000, ..Default::default() };
    look(cookie, at_ms, measurement)
}

fn observe(tracker: &mut Tracker, at_ms: u64, looks: &[Look]) {
    tracker.observe(ms(at_ms), Source::SockDiag, looks);
}

#[test]
fn with_nothing_to_say_it_is_healthy_and_silent() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    let first = tracker.take_change(ms(0)).expect("the first aggregate is news");
    assert_eq!((first.hint.health_factor, first.hint.connections, first.hint.token_rate), (1.0, 0, None));
    assert_eq!(tracker.take_change(ms(50)), None);
}

#[test]
fn the_aggregate_weighs_by_what_each_carries() {
    let mut tracker = Tracker::new(Source::SockDiag, 200.0);
    for at in (0..=4000).step_by(50) {
        observe(&mut tracker, at, &[healthy(1, at), congested(2, at), look(3, at, Measurement::default())]);
    }
    let hint = tracker.hint(ms(4020));
    assert_eq!(hint.connections, 2, "the idle one does not count");
    assert!(hint.health_factor > 0.6 && hint.health_factor < 0.85, "{}", hint.health_factor);
    assert_eq!(hint.metrics.queued_bytes, 3000);
    // Eleven bytes a millisecond at 0.1 ms, four at 800 ms.
    assert!((200_000..230_000).contains(&hint.metrics.rtt) && hint.metrics.min_rtt == 60, "{:?}", hint.metrics);
    assert!((15.0..25.0).contains(&hint.token_rate.unwrap()), "only the limited one counts: {:?}", hint.token_rate);
    assert_eq!(hint.age_ms, 20);

    let bad = tracker.by_cookie(2, ms(4020)).unwrap();
    assert!(bad.health < 0.1 && bad.terms.queue < 0.4);
    assert_eq!(tracker.by_peer(bad.peer, ms(4020)).unwrap().cookie, 2);
    assert_eq!(tracker.hint_of(&bad).metrics.rtt, 800_000);
    assert_eq!(tracker.by_cookie(9, ms(4020)), None);
    assert_eq!(tracker.network_limited(), 1);
}

#[test]
fn changes_hold_what_changed_and_what_went() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    observe(&mut tracker, 0, &[healthy(1, 0), healthy(2, 0)]);
    let change = tracker.take_change(ms(0)).unwrap();
    assert_eq!(change.changed.iter().map(|c| c.cookie).collect::<Vec<_>>(), [1, 2]);

    observe(&mut tracker, 50, &[healthy(1, 50), healthy(2, 50)]);
    tracker.take_change(ms(50)).expect("now two connections are active");
    observe(&mut tracker, 100, &[healthy(1, 100), healthy(2, 100)]);
    assert_eq!(tracker.take_change(ms(100)), None);

    observe(&mut tracker, 125, &[healthy(1, 125)]);
    observe(&mut tracker, 150, &[healthy(1, 150)]);
    let change = tracker.take_change(ms(150)).unwrap();
    assert_eq!((change.changed.len(), change.removed), (0, vec![2]));

    observe(&mut tracker, 200, &[congested(1, 200)]);
    let before = tracker.take_change(ms(200)).unwrap();
    assert_eq!(before.changed.len(), 1);
    observe(&mut tracker, 400, &[congested(1, 400)]);
    let after = tracker.take_change(ms(400)).unwrap();
    assert!(after.changed[0].health < 0.5);
    assert!(after.hint.seq > before.hint.seq);
}

#[test]
fn what_a_reader_would_see_differently_is_told_and_jitter_is_not() {
    let change = |vary: fn(&mut Look)| {
        let mut tracker = Tracker::new(Source::SockDiag, 220.0);
        for at in [0, 50, 100] {
            observe(&mut tracker, at, &[healthy(1, at)]);
            tracker.take_change(ms(at));
        }
        let mut look = healthy(1, 150);
        vary(&mut look);
        observe(&mut tracker, 150, &[look]);
        tracker.take_change(ms(150)).map_or(0, |change| change.changed.len())
    };
    assert_eq!(change(|look| (look.measurement.srtt_us, look.measurement.undelivered_bytes) = (1500, 500)), 0);
    assert_eq!(change(|look| look.measurement.srtt_us = 5000), 1);
    assert_eq!(change(|look| look.measurement.undelivered_bytes = 2000), 1);
    assert_eq!(change(|look| look.measurement.retransmits = 1), 1);
    assert_eq!(change(|look| look.source = Source::Ebpf), 1);
}

#[test]
fn a_change_of_what_measures_is_told() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    tracker.take_change(ms(0));
    tracker.observe(ms(50), Source::Ebpf, &[]);
    assert_eq!(tracker.take_change(ms(50)).map(|change| change.hint.source), Some(Source::Ebpf));
}

#[test]
fn what_was_lost_and_found_is_not_told_as_gone() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    observe(&mut tracker, 0, &[healthy(1, 0), healthy(2, 0)]);
    tracker.take_change(ms(0));
    tracker.expire(ms(2000));
    assert!(tracker.is_empty());
    observe(&mut tracker, 2050, &[healthy(1, 2050)]);
    let change = tracker.take_change(ms(2050)).unwrap();
    assert_eq!((change.changed[0].cookie, change.removed), (1, vec![2]));
}

#[test]
fn a_peer_with_several_connections_is_answered_for_by_the_busiest() {
    for (busy, slow) in [(1, 2), (2, 1)] {
        let mut tracker = Tracker::new(Source::SockDiag, 220.0);
        let peer = "192.0.2.2:40000".parse().unwrap();
        for at in (0..=500).step_by(50) {
            let mut looks = [healthy(busy, at), congested(slow, at)];
            looks.iter_mut().for_each(|look| look.identity.peer = peer);
            observe(&mut tracker, at, &looks);
        }
        assert_eq!(tracker.by_peer(peer, ms(500)).unwrap().cookie, busy);
        observe(&mut tracker, 550, &[]);
        observe(&mut tracker, 600, &[]);
        assert_eq!(tracker.by_peer(peer, ms(600)), None);
    }
}

#[test]
fn an_active_connection_is_heard_of_once_a_second() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    let mut events = 0;
    for at in (0..10_000).step_by(50) {
        observe(&mut tracker, at, &[healthy(1, at)]);
        events += u32::from(tracker.take_change(ms(at)).is_some());
    }
    assert!((10..=13).contains(&events), "{events}");
}

#[test]
fn without_looks_connections_are_forgotten() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    for at in (0..=2000).step_by(50) {
        observe(&mut tracker, at, &[congested(1, at)]);
    }
    tracker.take_change(ms(2000));
    tracker.expire(ms(3900));
    assert_eq!(tracker.len(), 1);
    tracker.expire(ms(4000));
    assert!(tracker.is_empty());
    let change = tracker.take_change(ms(4000)).unwrap();
    assert_eq!((change.hint.health_factor, change.removed), (1.0, vec![1]));
}

#[test]
fn one_round_without_a_connection_does_not_forget_it() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    observe(&mut tracker, 0, &[healthy(1, 0), healthy(2, 0)]);
    observe(&mut tracker, 50, &[healthy(2, 50)]);
    assert_eq!(tracker.len(), 2);
    observe(&mut tracker, 100, &[healthy(1, 100), healthy(2, 100)]);
    observe(&mut tracker, 150, &[healthy(2, 150)]);
    assert_eq!(tracker.len(), 2, "the rounds were not successive");
    observe(&mut tracker, 200, &[healthy(2, 200)]);
    assert_eq!((tracker.len(), tracker.by_cookie(1, ms(200))), (1, None));

    tracker.closed(&[2, 77]);
    assert_eq!(tracker.len(), 1);
    observe(&mut tracker, 250, &[]);
    assert!(tracker.is_empty(), "the kernel had said so");
}

#[test]
fn activity_decides_how_often_to_look() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    assert!(!tracker.is_active(ms(0)));
    observe(&mut tracker, 0, &[look(1, 0, Measurement::default())]);
    assert!(!tracker.is_active(ms(0)));
    observe(&mut tracker, 50, &[look(1, 50, Measurement { bytes_acked: 10, ..Default::default() })]);
    assert!(tracker.is_active(ms(50)));
    assert!(!tracker.is_active(ms(5000)));
    observe(&mut tracker, 5050, &[look(1, 5050, Measurement { undelivered_bytes: 10, bytes_acked: 10, ..Default::default() })]);
    assert!(tracker.is_active(ms(5050)));
}

#[test]
fn a_stalled_connection_weighs_nothing_and_is_still_looked_at() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    for at in (0..=8000).step_by(50) {
        let stalled = Look { measurement: Measurement { at: ms(at), ..congested(1, at.min(2000)).measurement }, ..congested(1, at) };
        observe(&mut tracker, at, &[stalled]);
        tracker.take_change(ms(at));
    }
    let hint = tracker.hint(ms(8000));
    assert_eq!((hint.connections, hint.health_factor, hint.metrics.queued_bytes), (0, 1.0, 3000));
    assert!(tracker.by_cookie(1, ms(8000)).unwrap().health < 0.1);
    assert_eq!(cookies(&tracker.hot_slice(9)), [1]);
}

#[test]
fn what_begins_to_wait_keeps_a_connection_looked_at() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    let idle = Measurement { srtt_us: 100, min_rtt_us: 60, ..Measurement::default() };
    observe(&mut tracker, 0, &[look(1, 0, idle), look(2, 0, idle)]);
    tracker.take_change(ms(0));
    assert_eq!(tracker.hot_slice(9), []);
    observe(&mut tracker, 50, &[look(1, 50, Measurement { undelivered_bytes: 10, ..idle }), look(2, 50, idle)]);
    tracker.take_change(ms(50));
    assert_eq!(cookies(&tracker.hot_slice(9)), [1]);
}

fn cookies(slice: &[Identity]) -> Vec<u64> {
    slice.iter().map(|identity| identity.cookie).collect()
}

#[test]
fn only_those_on_which_something_happens_are_looked_at_in_turn() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    let round = |at: u64| -> Vec<Look> {
        (1..=40).map(|cookie| if cookie <= 6 { healthy(cookie, at) } else { look(cookie, at, Measurement::default()) }).collect()
    };
    for at in (0..=500).step_by(50) {
        observe(&mut tracker, at, &round(at));
        tracker.take_change(ms(at));
    }
    let mut seen = [cookies(&tracker.hot_slice(4)), cookies(&tracker.hot_slice(2))].concat();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert_eq!(tracker.hot_slice(100).len(), 6);

    // Between two whole rounds only what was asked for can be missed.
    let asked = tracker.hot_slice(6);
    for at in [550, 600] {
        let looks: Vec<_> = asked.iter().filter(|identity| identity.cookie != 3).map(|identity| healthy(identity.cookie, at)).collect();
        tracker.observe_some(ms(at), Source::SockDiag, &looks);
        tracker.end_partial_round(ms(at), &asked);
    }
    assert_eq!((tracker.len(), tracker.by_cookie(3, ms(600))), (39, None));
    assert_eq!(tracker.take_change(ms(600)).unwrap().removed, [3]);

    // Traffic that ended makes all of them idle, and an idle one that begins is busy at once.
    tracker.take_change(ms(6000));
    assert_eq!(tracker.hot_slice(100), []);
    let begins = look(20, 6050, Measurement { bytes_acked: 500, ..Measurement::default() });
    tracker.observe_some(ms(6050), Source::SockDiag, &[begins]);
    assert_eq!(cookies(&tracker.hot_slice(100)), [20]);
    assert_eq!(tracker.hint(ms(6050)).connections, 1);
}

#[test]
fn the_worst_come_first_and_no_more_than_asked_for() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    for at in (0..=3000).step_by(50) {
        let looks: Vec<Look> = (1..=9).map(|cookie| if cookie % 4 == 0 { congested(cookie, at) } else { healthy(cookie, at) }).collect();
        observe(&mut tracker, at, &looks);
    }
    let worst = |most| tracker.worst(ms(3000), most).iter().map(|connection| connection.cookie).collect::<Vec<_>>();
    assert_eq!(worst(3), [4, 8, 1]);
    assert_eq!((worst(0).len(), worst(100).len()), (0, 9));
}

#[test]
fn a_sick_connection_that_falls_idle_is_told_of_until_it_is_well() {
    let mut tracker = Tracker::new(Source::SockDiag, 220.0);
    for at in (0..=2000).step_by(50) {
        observe(&mut tracker, at, &[congested(1, at)]);
    }
    assert!(tracker.take_change(ms(2000)).unwrap().changed[0].health < 0.2);
    let rested = |at: u64| look(1, at, Measurement { srtt_us: 300, min_rtt_us: 60, bytes_acked: 11_000, ..Measurement::default() });
    let mut last = 0.0;
    for at in (2050..20_000).step_by(50) {
        observe(&mut tracker, at, &[rested(at)]);
        if let Some(change) = tracker.take_change(ms(at)) {
            last = change.changed.first().map_or(last, |connection| connection.health);
        }
    }
    assert_eq!(last, 1.0);
    assert_eq!(tracker.hot_slice(9), []);
    assert_eq!(tracker.by_cookie(1, ms(20_000)).unwrap().age_ms, 50, "it is still looked at");
}

proptest! {
    /// What is kept up to date step by step is what counting it afresh gives.
    #[test]
    fn sums_and_indices_are_true_whatever_comes_and_goes(
        rounds in vec((vec((1u64..12, 0u64..3000, 0u64..5, 0u64..4), 0..10), any::<bool>(), vec(1u64..12, 0..3), 20u64..3000), 1..40),
    ) {
        let (mut tracker, mut at) = (Tracker::new(Source::SockDiag, 220.0), 0);
        for (looks, whole, closed, gap) in rounds {
            at += gap;
            let looks: Vec<Look> = looks
                .into_iter()
                .map(|(cookie, bytes, retransmits, backlog)| look(cookie, at, Measurement {
                    srtt_us: 100, min_rtt_us: 50, bytes_acked: at * 10 + bytes, retransmits: at / 100 + retransmits, undelivered_bytes: backlog * 700,
                    ..Measurement::default()
                }))
                .collect();
            tracker.closed(&closed);
            if whole {
                observe(&mut tracker, at, &looks);
            } else {
                let asked = tracker.hot_slice(4);
                tracker.observe_some(ms(at), Source::SockDiag, &looks);
                tracker.end_partial_round(ms(at), &asked);
            }
            let all = tracker.connections(ms(at));
            let hint = tracker.hint(ms(at));
            prop_assert_eq!(hint.metrics.retrans, all.iter().map(|c| c.retransmits).sum::<u64>());
            prop_assert_eq!(hint.metrics.queued_bytes, all.iter().map(|c| c.undelivered_bytes).sum::<u64>());
            prop_assert_eq!(tracker.network_limited(), tracker.connections.values().filter(|t| t.score.network_limited()).count());
            for connection in &all {
                prop_assert_eq!(tracker.by_peer(connection.peer, ms(at)).map(|found| found.cookie), Some(connection.cookie));
            }
            prop_assert_eq!(tracker.peers.values().map(Vec::len).sum::<usize>(), all.len());
            prop_assert!(tracker.peers.values().all(|cookies| !cookies.is_empty()), "a peer that is gone leaves nothing behind");
            tracker.take_change(ms(at));
            let mut hot = tracker.hot.clone();
            hot.sort_unstable();
            let mut expected: Vec<u64> = tracker.connections.iter().filter(|(_, t)| t.hot).map(|(&cookie, _)| cookie).collect();
            expected.sort_unstable();
            prop_assert_eq!(hot, expected);
            let cold_but_listed = tracker.connections.values().filter(|t| !t.hot && !t.is_cold(ms(at))).count();
            prop_assert_eq!(cold_but_listed, 0, "one on which something happens is not listed");
        }
    }
}
