//! What holds for a whole score, whatever the looks: worse input never gives better health, and counters that wrap or restart cost one look.

use proptest::{collection::vec, prelude::*};

use super::*;

/// One look's increments, so that two versions of the same past can be compared.
#[derive(Clone, Copy, Debug)]
struct Step {
    gap_ms: u64,
    srtt_us: u32,
    min_rtt_us: u32,
    segments: u64,
    retransmits: u64,
    rtos: u64,
    acked: u64,
    undelivered: u64,
    kernel_rate: u64,
    app_limited: Option<bool>,
}

prop_compose! {
    fn any_step()(
        gap_ms in prop_oneof![10u64..120, 0u64..3000], srtt_us in 0u32..3_000_000, min_rtt_us in 1u32..300_000,
        segments in 0u64..100, retransmits in 0u64..8, rtos in prop_oneof![9 => Just(0u64), 1 => Just(1)],
        acked in prop_oneof![Just(0u64), 1u64..20_000], undelivered in prop_oneof![Just(0u64), 1u64..40_000],
        kernel_rate in prop_oneof![Just(0u64), 1000u64..1_000_000], app_limited in any::<Option<bool>>(),
    ) -> Step {
        let min_rtt_us = if srtt_us > 0 { min_rtt_us.min(srtt_us) } else { min_rtt_us };
        Step { gap_ms, srtt_us, min_rtt_us, segments, retransmits, rtos, acked, undelivered, kernel_rate, app_limited }
    }
}

/// Health and the least term after each look.
fn run(steps: &[Step], mut look_at: impl FnMut(usize, &mut Measurement)) -> Vec<(f64, f64)> {
    let (mut score, mut look) = (ConnectionScore::new(), Measurement::default());
    let mut outcome = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        look.at += Duration::from_millis(step.gap_ms);
        (look.srtt_us, look.min_rtt_us) = (step.srtt_us, step.min_rtt_us);
        look.data_segs_out += step.segments;
        look.retransmits += step.retransmits;
        look.rtos += step.rtos;
        look.bytes_acked += step.acked;
        look.undelivered_bytes = step.undelivered;
        (look.delivery_rate_bytes_per_s, look.app_limited) = (step.kernel_rate, step.app_limited);
        let mut told = look;
        look_at(index, &mut told);
        score.observe(&told);
        outcome.push((score.health(told.at), score.terms().least()));
    }
    outcome
}

/// Smoothing may keep a report within its dead band and the ends of the scale of what was reported before.
const BAND: f64 = 0.05;

fn assert_no_better(worse: &[(f64, f64)], plain: &[(f64, f64)]) {
    for (index, (worse, plain)) in worse.iter().zip(plain).enumerate() {
        assert!(worse.1 <= plain.1 + 1e-9, "look {index}: the least term rose from {} to {}", plain.1, worse.1);
        assert!(worse.0 <= plain.0 + BAND, "look {index}: health rose from {} to {}", plain.0, worse.0);
    }
}

proptest! {
    #[test]
    fn a_longer_round_trip_is_never_better(mut steps in vec(any_step(), 1..60), which in any::<prop::sample::Index>(), more in 0u32..3_000_000) {
        let which = which.index(steps.len());
        steps[which].srtt_us = steps[which].srtt_us.max(steps[which].min_rtt_us);
        let plain = run(&steps, |_, _| {});
        steps[which].srtt_us += more;
        assert_no_better(&run(&steps, |_, _| {}), &plain);
    }

    #[test]
    fn more_retransmissions_and_timeouts_are_never_better(
        mut steps in vec(any_step(), 2..60), which in any::<prop::sample::Index>(), (retransmits, rtos) in (0u64..50, 0u64..3),
    ) {
        let plain = run(&steps, |_, _| {});
        let step = &mut steps[which.index(plain.len())];
        step.retransmits += retransmits;
        step.rtos += rtos;
        assert_no_better(&run(&steps, |_, _| {}), &plain);
    }

    #[test]
    fn a_lower_delivery_rate_of_the_kernel_is_never_better(
        mut steps in vec(any_step(), 1..60), which in any::<prop::sample::Index>(), divisor in 1u64..100,
    ) {
        let which = which.index(steps.len());
        steps[which].kernel_rate = steps[which].kernel_rate.max(1000);
        let plain = run(&steps, |_, _| {});
        steps[which].kernel_rate /= divisor;
        assert_no_better(&run(&steps, |_, _| {}), &plain);
    }

    #[test]
    fn a_network_limited_sample_is_never_better_than_an_application_limited_one(
        mut steps in vec(any_step(), 1..60), which in any::<prop::sample::Index>(),
    ) {
        let which = which.index(steps.len());
        steps[which].app_limited = Some(true);
        let plain = run(&steps, |_, _| {});
        steps[which].app_limited = Some(false);
        assert_no_better(&run(&steps, |_, _| {}), &plain);
    }

    #[test]
    fn counters_that_wrap_cost_one_look(steps in vec(any_step(), 2..60), segments in any::<u32>(), retransmits in any::<u32>(), rtos in any::<u16>()) {
        // As wide as the kernel's counters are, from anywhere in their range.
        let wrapped = |_: usize, look: &mut Measurement| {
            look.data_segs_out = u64::from((look.data_segs_out as u32).wrapping_add(segments));
            look.retransmits = u64::from((look.retransmits as u32).wrapping_add(retransmits));
            look.rtos = u64::from((look.rtos as u16).wrapping_add(rtos));
        };
        let mut wraps = Vec::new();
        let mut last = Measurement::default();
        wrapped(0, &mut last);
        let outcome = run(&steps, |index, look| {
            wrapped(index, look);
            if look.data_segs_out < last.data_segs_out || look.retransmits < last.retransmits || look.rtos < last.rtos {
                wraps.push(index);
            }
            last = *look;
        });
        let plain = run(&steps, |_, _| {});
        let Some(&first) = wraps.first() else {
            prop_assert_eq!(outcome, plain);
            return Ok(());
        };
        prop_assert_eq!(&outcome[..first], &plain[..first]);
        prop_assert!(wraps.len() <= 3, "each counter wraps once: {wraps:?}");
        prop_assert!(outcome.iter().all(|(health, least)| (0.0..=1.0).contains(health) && (0.0..=1.0).contains(least)));
    }

    #[test]
    fn a_healthy_stream_stays_healthy_when_its_counters_restart(at in vec(1usize..20, 0..6)) {
        let step = Step {
            gap_ms: 50, srtt_us: 900, min_rtt_us: 600, segments: 3, retransmits: 0, rtos: 0, acked: 550, undelivered: 220, kernel_rate: 90_000,
            app_limited: Some(true),
        };
        // What was sent again and timed out long ago, before the first look.
        let (past_retransmits, past_rtos) = (40, 3);
        let mut lost = Measurement::default();
        let outcome = run(&vec![step; 200], |index, look| {
            (look.retransmits, look.rtos) = (look.retransmits + past_retransmits, look.rtos + past_rtos);
            if at.iter().any(|at| at * 10 == index) {
                lost = *look;
            }
            look.data_segs_out -= lost.data_segs_out;
            look.bytes_acked -= lost.bytes_acked;
            look.retransmits -= lost.retransmits;
            look.rtos -= lost.rtos;
        });
        prop_assert!(outcome.iter().all(|&(health, _)| health == 1.0), "{outcome:?}");
    }

    #[test]
    fn a_congested_stream_is_not_acquitted_by_a_restart(at in 60usize..150) {
        let step = Step {
            gap_ms: 50, srtt_us: 800_000, min_rtt_us: 600, segments: 1, retransmits: 0, rtos: 0, acked: 200, undelivered: 9000,
            kernel_rate: 24_000, app_limited: Some(false),
        };
        let mut lost = 0;
        let outcome = run(&vec![step; 200], |index, look| {
            if index == at {
                lost = look.bytes_acked;
            }
            look.bytes_acked -= lost;
        });
        prop_assert!(outcome[50..].iter().all(|&(health, _)| health < 0.1), "{:?}", &outcome[50..]);
    }
}
