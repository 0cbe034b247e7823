use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn look(at_ms: u64, bytes_acked: u64, undelivered_bytes: u64) -> Measurement {
    Measurement { at: ms(at_ms), bytes_acked, undelivered_bytes, ..Default::default() }
}

/// A steady flow: `step` bytes acknowledged every `every_ms`, looked at every 50 ms.
fn steady(step: u64, every_ms: u64, for_ms: u64) -> (DeliveryRate, Measurement) {
    let mut rate = DeliveryRate::default();
    let mut last = look(0, 0, 1000);
    for at in (50..=for_ms).step_by(50) {
        let now = look(at, at / every_ms * step, 1000);
        rate.observe(&last, &now);
        last = now;
    }
    (rate, last)
}

#[test]
fn a_steady_flow_reads_as_it_flows() {
    for (step, every_ms) in [(220, 20), (220, 71), (220, 150), (1448, 3)] {
        let truth = step as f64 * 1000.0 / every_ms as f64;
        let (rate, last) = steady(step, every_ms, 4_000);
        let read = rate.bytes_per_s(&last, ms(1)).unwrap();
        assert!((read / truth - 1.0).abs() < 0.25, "{step} bytes every {every_ms} ms: read {read}, true {truth}");
    }
}

#[test]
fn one_chunk_every_700_ms_is_slow_but_not_stopped() {
    let (rate, last) = steady(220, 700, 10_000);
    let read = rate.bytes_per_s(&last, ms(1)).unwrap();
    assert!((250.0..450.0).contains(&read), "{read}");
}

#[test]
fn the_kernels_rate_is_the_upper_bound_and_the_fallback() {
    let kernel = Measurement { delivery_rate_bytes_per_s: 5_000, ..look(4_000, 0, 10) };
    assert_eq!(DeliveryRate::default().bytes_per_s(&kernel, ms(1)), Some(5_000.0));
    assert_eq!(DeliveryRate::default().bytes_per_s(&look(0, 0, 0), ms(1)), None);
    let (rate, last) = steady(220, 20, 4_000);
    let capped = Measurement { delivery_rate_bytes_per_s: 3_000, ..last };
    assert_eq!(rate.bytes_per_s(&capped, ms(1)), Some(3_000.0));
}

#[test]
fn an_old_rate_gives_way_to_the_kernels() {
    let (mut rate, last) = steady(220, 20, 4_000);
    let later = Measurement { delivery_rate_bytes_per_s: 50_000_000, undelivered_bytes: 0, ..look(15_000, last.bytes_acked, 0) };
    rate.observe(&last, &later);
    assert_eq!(rate.bytes_per_s(&later, ms(1)), Some(50_000_000.0));
    assert!(rate.bytes_per_s(&Measurement { delivery_rate_bytes_per_s: 0, ..later }, ms(1)).unwrap() < 20_000.0);
}

#[test]
fn a_stall_wears_the_rate_down() {
    let (mut rate, mut last) = steady(220, 20, 2_000);
    for at in (2_050..=6_000).step_by(50) {
        let now = look(at, last.bytes_acked, 1000);
        rate.observe(&last, &now);
        last = now;
    }
    assert!(rate.bytes_per_s(&last, ms(1)).unwrap() < 400.0);
}

#[test]
fn a_counter_that_restarts_gives_no_jump() {
    let (mut rate, last) = steady(220, 20, 2_000);
    let before = rate.bytes_per_s(&last, ms(1)).unwrap();
    let restarted = look(2_050, 3, 1000);
    rate.observe(&last, &restarted);
    let after = rate.bytes_per_s(&restarted, ms(1)).unwrap();
    assert!((after - before).abs() < before * 0.5, "{before} -> {after}");
}

#[test]
fn a_burst_that_drains_is_no_standing_backlog() {
    let mut backlog = Backlog::default();
    for at in (0..5_000).step_by(50) {
        let undelivered = if at % 200 < 100 { 20_000 } else { 0 };
        backlog.observe(&look(at, 0, undelivered), Some(10_000.0), ms(1));
        assert!(!backlog.network_limited());
    }
}

#[test]
fn rare_looks_prove_no_backlog() {
    let mut backlog = Backlog::default();
    for at in (0..60_000).step_by(5_000) {
        backlog.observe(&look(at, 0, 20_000), Some(10_000.0), ms(1));
        assert!(!backlog.network_limited());
    }
}
