use proptest::{collection::vec, prelude::*};

use super::*;
use crate::simulated_link::{CHUNK, Link};

const MBIT: f64 = 1e6;

fn at(link: &Link) -> Duration {
    Duration::from_millis(link.now_ms)
}

#[test]
fn a_fast_link_is_healthy_and_never_the_limit() {
    let mut link = Link::new(100.0 * MBIT, 20);
    let mut score = ConnectionScore::new();
    link.run(&mut score, 10_000, 50, |link, score| {
        assert_eq!(score.health(at(link)), 1.0);
        assert_eq!(score.token_rate(220.0), None);
    });
    assert!(score.activity_bytes(at(&link)) > 0.0);
}

#[test]
fn a_long_path_is_not_congestion() {
    for look_every in [20, 50, 130, 250] {
        let mut link = Link::new(50.0 * MBIT, 200_000);
        let mut score = ConnectionScore::new();
        link.run(&mut score, 3_000, look_every, |link, score| {
            assert_eq!(score.health(at(link)), 1.0, "at {} ms", link.now_ms);
            assert!(!score.network_limited(), "at {} ms", link.now_ms);
        });
        // Idle, then twice the rate.
        link.chunk_every_ms = 0;
        link.run(&mut score, 5_000, look_every, |_, _| {});
        link.chunk_every_ms = 10;
        link.run(&mut score, 5_000, look_every, |link, score| assert!(!score.network_limited(), "at {} ms", link.now_ms));
        let rate = score.delivery_rate().unwrap();
        assert!((18_000.0..26_000.0).contains(&rate), "{rate}");
    }
}

#[test]
fn delayed_acknowledgements_are_not_congestion() {
    // A chunk every 20 ms, each acknowledged 40 ms later: srtt 40 ms over a path of 20 us.
    let mut score = ConnectionScore::new();
    for tick in 0..200u64 {
        score.observe(&Measurement {
            at: Duration::from_millis(tick * 50),
            srtt_us: if tick == 0 { 20 } else { 42_000 },
            min_rtt_us: 20,
            bytes_acked: tick * 550,
            undelivered_bytes: CHUNK * (1 + tick % 2),
            delivery_rate_bytes_per_s: 70_000_000,
            app_limited: Some(false),
            ..Measurement::default()
        });
        assert!(!score.network_limited(), "tick {tick}");
        assert!(score.health(Duration::from_millis(tick * 50)) > 0.9);
    }
}

#[test]
fn a_throttled_link_falls_and_a_freed_one_recovers() {
    for look_every in [25, 50, 250] {
        let mut link = Link::new(100.0 * MBIT, 20);
        let mut score = ConnectionScore::new();
        link.run(&mut score, 3_000, look_every, |_, _| {});
        link.set_rate(32_000.0);
        link.run(&mut score, 2_000, look_every, |_, _| {});
        assert!(score.health(at(&link)) < 0.5, "{}", score.health(at(&link)));
        link.run(&mut score, 6_000, look_every, |_, _| {});
        assert!(score.health(at(&link)) < 0.1);
        assert!(score.terms().queue < 0.1);
        let tokens = score.token_rate(CHUNK as f64).unwrap();
        assert!((12.0..16.5).contains(&tokens), "32 kbit/s carries 14 chunks/s, estimated {tokens}");
        assert_eq!(score.token_rate(0.0), None, "no number");
        link.set_rate(100.0 * MBIT);
        link.run(&mut score, 4_000, look_every, |_, _| {});
        assert!(score.health(at(&link)) > 0.9, "{}", score.health(at(&link)));
        assert_eq!(score.token_rate(CHUNK as f64), None);
    }
}

#[test]
fn a_stream_paced_to_a_few_chunks_is_still_limited_by_its_slow_link() {
    let mut link = Link::new(100.0 * MBIT, 20);
    link.app_limited = Some(true);
    let mut score = ConnectionScore::new();
    link.run(&mut score, 2_000, 50, |_, _| {});
    link.set_rate(32_000.0);
    link.window_bytes = 3 * CHUNK;
    link.run(&mut score, 3_000, 50, |_, _| {});
    link.run(&mut score, 20_000, 50, |link, score| assert!(score.network_limited(), "at {} ms", link.now_ms));
    let tokens = score.token_rate(CHUNK as f64).unwrap();
    assert!((12.0..16.5).contains(&tokens), "{tokens}");
}

#[test]
fn a_reader_that_stops_reading_is_seen_though_round_trips_stay_short() {
    let mut link = Link::new(100.0 * MBIT, 20);
    let mut score = ConnectionScore::new();
    link.run(&mut score, 2_000, 50, |_, _| {});
    link.blackhole = true;
    link.run(&mut score, 4_000, 50, |_, _| {});
    assert_eq!(score.terms().queue, 0.0);
    assert!(score.health(at(&link)) < 0.1);
    assert!(score.token_rate(220.0).unwrap() < 1.0);
}

#[test]
fn idle_time_lowers_nothing() {
    let mut link = Link::new(64_000.0, 20);
    let mut score = ConnectionScore::new();
    link.run(&mut score, 5_000, 50, |_, _| {});
    let busy = score.delivery_rate().unwrap();
    link.chunk_every_ms = 0;
    link.run(&mut score, 60_000, 50, |_, _| {});
    assert!(score.delivery_rate().unwrap() >= busy * 0.9);
    assert_eq!(score.activity_bytes(at(&link)), 0.0);
    assert_eq!(score.health(at(&link)), 1.0, "the round trip of the congested past has expired");
}

#[test]
fn a_look_that_comes_late_is_ignored() {
    let mut score = ConnectionScore::new();
    let look = |ms: u64, srtt_us| Measurement { at: Duration::from_millis(ms), srtt_us, min_rtt_us: 50, ..Default::default() };
    score.observe(&look(1000, 900));
    score.observe(&Measurement { rtos: 9, undelivered_bytes: 1 << 20, ..look(500, 3_000_000) });
    assert_eq!((score.terms(), score.last()), (Terms::HEALTHY, Some(&look(1000, 900))));
    score.observe(&look(1050, 900));
    assert_eq!(score.health(Duration::from_millis(1050)), 1.0);
}

#[test]
fn a_connection_that_has_something_to_deliver_is_never_acquitted_by_time() {
    let mut score = ConnectionScore::new();
    for tick in 0..400 {
        score.observe(&Measurement {
            at: Duration::from_millis(tick * 50),
            srtt_us: 800_000,
            min_rtt_us: 50,
            bytes_acked: 440,
            undelivered_bytes: 5000,
            ..Measurement::default()
        });
    }
    let terms = score.terms();
    assert!(terms.delay < 0.06 && terms.queue < 0.01, "{terms:?}");
}

#[test]
fn a_timeout_caps_health_at_a_half() {
    let mut score = ConnectionScore::new();
    let look = |ms: u64, rtos| Measurement { at: Duration::from_millis(ms), srtt_us: 50, min_rtt_us: 50, rtos, ..Default::default() };
    score.observe(&look(0, 7));
    assert_eq!(score.terms().loss, 1.0, "timeouts of before the first look are history");
    score.observe(&look(50, 8));
    assert_eq!(score.terms().loss, 0.5);
    score.observe(&look(900, 8));
    let health = score.health(Duration::from_millis(900));
    assert!((0.49..=0.52).contains(&health), "{health}");
    score.observe(&look(1100, 8));
    assert_eq!(score.terms().loss, 1.0);
}

#[test]
fn the_delay_term_follows_the_law() {
    let delay = |min_rtt_us, srtt_us| {
        let mut score = ConnectionScore::new();
        score.observe(&Measurement { srtt_us, min_rtt_us, ..Default::default() });
        score.terms().delay
    };
    assert_eq!(delay(20, 40_000), 1.0);
    assert!((delay(20, 80_040) - 0.5).abs() < 1e-3);
    assert!((delay(200_000, 500_000) - 0.5).abs() < 1e-9);
    assert_eq!(delay(0, 0), 1.0);
}

#[test]
fn the_queue_term_follows_the_law() {
    let queue = |undelivered_bytes| {
        let mut score = ConnectionScore::new();
        for tick in 0..80 {
            // A thousand bytes a second.
            score.observe(&Measurement {
                at: Duration::from_millis(tick * 50),
                srtt_us: 300_000,
                min_rtt_us: 50,
                bytes_acked: tick * 50,
                undelivered_bytes,
                ..Measurement::default()
            });
        }
        score.terms().queue
    };
    let target_bytes = QUEUE_TARGET.as_secs_f64() * 1000.0;
    for share in [0.25, 0.5, 0.75] {
        let term = queue((share * target_bytes) as u64);
        assert!((term - (1.0 - share)).abs() < 0.01, "{share} of the target: {term}");
    }
    assert_eq!(queue(0), 1.0);
    assert_eq!(queue(target_bytes as u64 * 2), 0.0);
}

#[test]
fn a_round_trip_counts_until_the_connection_has_been_idle_for_ten_seconds() {
    let mut score = ConnectionScore::new();
    let look = |ms: u64| Measurement { at: Duration::from_millis(ms), srtt_us: 800_000, min_rtt_us: 50, ..Measurement::default() };
    score.observe(&look(0));
    for ms in (50..9_900).step_by(50) {
        score.observe(&look(ms));
        assert!(score.terms().delay < 0.06, "at {ms} ms");
    }
    assert!(score.health(Duration::from_millis(9_850)) < 0.1, "by its delay alone");
    score.observe(&look(10_050));
    assert_eq!(score.terms().delay, 1.0);
}

#[test]
fn each_term_alone_can_be_the_least() {
    let well = Terms::HEALTHY;
    assert_eq!(well.least(), 1.0);
    for sick in [Terms { delay: 0.25, ..well }, Terms { loss: 0.25, ..well }, Terms { queue: 0.25, ..well }] {
        assert_eq!(sick.least(), 0.25);
    }
    assert_eq!(Terms { delay: 0.5, loss: 0.75, queue: 0.625 }.least(), 0.5, "they are not multiplied");
}

prop_compose! {
    fn any_look()(
        gap_ms in prop_oneof![0u64..300, 0u64..100_000],
        srtt_us in any::<u32>(), min_rtt_us in any::<u32>(),
        data_segs_out in prop_oneof![0u64..1000, any::<u64>()], retransmits in prop_oneof![0u64..1000, any::<u64>()],
        rtos in any::<u64>(), bytes_acked in prop_oneof![0u64..100_000, any::<u64>()],
        undelivered_bytes in prop_oneof![Just(0), 1u64..100_000, any::<u64>()],
        delivery_rate_bytes_per_s in prop_oneof![Just(0), any::<u64>()],
        app_limited in any::<Option<bool>>(),
    ) -> (u64, Measurement) {
        let at = Duration::ZERO;
        (gap_ms, Measurement {
            at, srtt_us, min_rtt_us, data_segs_out, retransmits, rtos, bytes_acked, undelivered_bytes, delivery_rate_bytes_per_s, app_limited,
        })
    }
}

proptest! {
    #[test]
    fn every_output_is_a_number_in_range(looks in vec(any_look(), 1..60)) {
        let mut score = ConnectionScore::new();
        let mut now = Duration::ZERO;
        for (gap_ms, mut look) in looks {
            let before = score.health(now);
            now += Duration::from_millis(gap_ms);
            look.at = now;
            score.observe(&look);
            let terms = score.terms();
            for term in [terms.delay, terms.loss, terms.queue, score.health(now), score.health(now + Duration::from_millis(70))] {
                prop_assert!((0.0..=1.0).contains(&term), "{term}");
            }
            // The dead band (0.02) and the ends of the scale (0.02) may add to the step of the smoothing.
            let most = 1.0 - (-(gap_ms as f64) / 150.0).exp() + 0.04;
            prop_assert!((score.health(now) - before).abs() <= most, "{before} -> {} in {gap_ms} ms", score.health(now));
            prop_assert!(score.delivery_rate().is_none_or(|rate| rate.is_finite() && rate >= 0.0));
            prop_assert!(score.token_rate(220.0).is_none_or(|rate| rate.is_finite() && rate >= 0.0));
            prop_assert!(score.activity_bytes(now).is_finite());
        }
    }

    #[test]
    fn delay_falls_as_the_round_trip_grows(min_rtt_us in 1u32..1_000_000, srtt_us in 1u32..10_000_000, more in 0u32..10_000_000) {
        let delay = |srtt_us| {
            let mut score = ConnectionScore::new();
            score.observe(&Measurement { srtt_us, min_rtt_us: min_rtt_us.min(srtt_us), ..Default::default() });
            score.terms().delay
        };
        let srtt_us = srtt_us.max(min_rtt_us);
        prop_assert!(delay(srtt_us + more) <= delay(srtt_us));
    }

    #[test]
    fn loss_falls_as_more_is_sent_again(segments in 0u64..10_000, retransmits in 0u64..10_000, more in 0u64..1000) {
        let loss = |retransmits| {
            let mut score = ConnectionScore::new();
            score.observe(&Measurement::default());
            score.observe(&Measurement { data_segs_out: segments, retransmits, ..Default::default() });
            score.terms().loss
        };
        prop_assert!(loss(retransmits + more) <= loss(retransmits));
    }

    #[test]
    fn the_queue_term_falls_as_the_backlog_grows(backlog in 1u64..100_000, more in 0u64..100_000) {
        let queue = |undelivered_bytes| {
            let mut score = ConnectionScore::new();
            for tick in 0..40 {
                score.observe(&Measurement {
                    at: Duration::from_millis(tick * 50), srtt_us: 200_000, min_rtt_us: 20, bytes_acked: tick * 250, undelivered_bytes,
                    ..Default::default()
                });
            }
            score.terms().queue
        };
        prop_assert!(queue(backlog + more) <= queue(backlog));
    }
}
