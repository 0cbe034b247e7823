//! A trace, read line by line and scored again: every score is in range, or the trace is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenflow_hint_server::trace::{Score, TraceError, TraceReader, replay};

fuzz_target!(|bytes: &[u8]| {
    tokenflow_fuzz::limit_memory();
    let Ok(trace) = TraceReader::new(bytes) else { return };
    let in_range = |share: f64| (0.0..=1.0).contains(&share);
    let outcome = replay::<TraceError>(trace, 220.0, |score: &Score| {
        let terms = score.terms;
        assert!([score.health, terms.delay, terms.loss, terms.queue].into_iter().all(in_range), "{score:?}");
        assert!(score.token_rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0), "{score:?}");
        Ok(())
    });
    if let Ok(all) = outcome {
        assert!(in_range(all.least_aggregate));
    }
});
