use std::{collections::HashMap, thread};

use super::run::Live;
use crate::{
    grammar::{MatchError, Matcher},
    sampling::TokenMask,
    scheduler::{SampleRequest, SequenceId, StepPlan},
};

/// More threads would cost more to start than the masks of a step take.
const MAX_THREADS: usize = 8;

/// A row that a grammar rules.
struct Row<'a> {
    id: SequenceId,
    matcher: &'a mut Matcher,
    sample: &'a mut SampleRequest,
}

/// Puts the masks into a plan's constrained rows and names the sequences whose grammar cannot be followed any further, with the reason.
pub(super) fn fill_masks(plan: &mut StepPlan, live: &mut HashMap<SequenceId, Live>) -> Vec<(SequenceId, MatchError)> {
    let mut constrained: HashMap<SequenceId, &mut SampleRequest> = plan
        .sequences
        .iter_mut()
        .filter_map(|s| Some((s.id, s.sample.as_mut()?)))
        .filter(|(_, sample)| sample.params.constrained)
        .collect();
    if constrained.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<Row<'_>> = live
        .iter_mut()
        .filter_map(|(&id, live)| Some(Row { id, matcher: live.matcher.as_mut()?, sample: constrained.remove(&id)? }))
        .collect();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(rows.len()).max(1);
    let share = rows.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut parts = rows.chunks_mut(share);
        let own = parts.next();
        let others: Vec<_> = parts.map(|part| scope.spawn(|| masks(part))).collect();
        let mut failed = own.map(masks).unwrap_or_default();
        // A panic of the grammar library comes back as an error, so that joining fails for no reason of its own.
        failed.extend(others.into_iter().flat_map(|other| other.join().unwrap_or_default()));
        failed
    })
}

fn masks(rows: &mut [Row<'_>]) -> Vec<(SequenceId, MatchError)> {
    let mut failed = Vec::new();
    for row in rows {
        match row.matcher.mask() {
            Ok(mask) => row.sample.mask = Some(mask.into()),
            Err(error) => {
                // The row is computed all the same; nobody reads its token.
                row.sample.mask = Some(TokenMask::default().into());
                failed.push((row.id, error));
            }
        }
    }
    failed
}
