//! What the step loop costs once it runs: no memory, no waiting but for the tokens of the step before, one graph and one sampler a step.

use std::{env, process::Command};

use tokenflow_gpu_emulator::Counters;

use crate::{
    device::{bf16, emulated, on_gpu},
    steps::serve,
    weights::Model,
};

const ALONE: &str = "TOKENFLOW_TEST_ALONE";
const STEPS: usize = 15;
/// From here on, every sequence decodes and the step of this form has been recorded.
const STEADY_FROM: usize = 8;

/// Counters are of the whole process, so that the measurement runs in one of its own.
#[test]
fn a_steady_step_allocates_nothing_and_waits_for_tokens_only() {
    if env::var_os(ALONE).is_none() {
        let name = "steady::a_steady_step_allocates_nothing_and_waits_for_tokens_only";
        let output = Command::new(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return;
    }
    let model = Model::new("mistral");
    let executor = &mut on_gpu(&model.folder(), bf16());
    let (mut first, mut last): (Option<Counters>, Option<Counters>) = (None, None);
    serve(executor, STEPS, 2, &mut |step| match step {
        STEADY_FROM => first = Some(emulated().counters()),
        step if step + 1 == STEPS => last = Some(emulated().counters()),
        _ => {}
    });
    let (first, last) = (first.unwrap(), last.unwrap());
    let steps = (STEPS - 1 - STEADY_FROM) as u64;
    let grown = |of: fn(&Counters) -> u64| of(&last) - of(&first);
    assert_eq!([grown(|c| c.allocations), grown(|c| c.pinned_allocations), grown(|c| c.frees)], [0; 3], "memory");
    assert_eq!([grown(|c| c.stream_waits), grown(|c| c.context_waits), grown(|c| c.event_queries)], [0; 3], "waits");
    assert!(grown(|c| c.event_waits) <= steps, "{} waits for tokens in {steps} steps", grown(|c| c.event_waits));
    assert_eq!([grown(|c| c.graph_launches), grown(|c| c.graphs)], [steps, 0], "graphs");
    // The sampler and the log-probabilities; indices and requests there, tokens and log-probabilities back.
    assert_eq!([grown(|c| c.launches), grown(|c| c.copies)], [2 * steps, 4 * steps], "launches and copies beside graphs");
}
