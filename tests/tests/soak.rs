//! A short soak; `cargo xtask soak` runs a long one.

use std::time::Duration;

use tokenflow_tests::soak::{self, Options};

#[test]
fn random_clients_leave_the_engine_as_it_was() {
    let options = Options::lasting(Duration::from_secs(30), 1);
    let summary = soak::run(&options, |line| eprintln!("{line}")).unwrap();
    eprintln!("{:#}", summary.report);
    assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
    let report = &summary.report;
    for kind in ["stream", "whole", "leave_stream", "malformed"] {
        assert!(report["visits"][kind].as_u64().unwrap_or(0) > 0, "no visit of the kind {kind}: {report:#}");
    }
    assert!(report["finish_reasons"]["length"].as_u64().unwrap_or(0) > 0, "{report:#}");
}
