//! What a request asks to be changed in a row of logits before a token is chosen: vLLM's meanings, in vLLM's order.

use std::{borrow::Cow, mem};

use super::{LogitAdjustments, math};
use crate::scheduler::SampleRequest;

/// Marks tokens whose penalties have been applied.
const DONE: u32 = u32::MAX;

/// The row to choose from: the raw one where nothing is to be changed.
///
/// A grammar's mask is never broken. Where the rest of what was asked for leaves no token, the rest gives way.
pub(super) fn adjusted<'a>(logits: &'a [f32], request: &SampleRequest) -> Cow<'a, [f32]> {
    let (adjustments, mask) = (request.params.adjustments.as_deref(), request.mask.as_deref());
    if adjustments.is_none() && mask.is_none() {
        return Cow::Borrowed(logits);
    }
    let masked = || {
        let mut row = logits.to_vec();
        if let Some(mask) = mask {
            mask.apply(&mut row);
        }
        row
    };
    let mut row = masked();
    if let Some(adjustments) = adjustments {
        adjust(&mut row, adjustments, request);
        if math::max(&row) == f32::NEG_INFINITY {
            row = masked();
        }
    }
    Cow::Owned(row)
}

fn adjust(row: &mut [f32], adjustments: &LogitAdjustments, request: &SampleRequest) {
    let history = request.history.as_deref().unwrap_or_default();
    let (prompt, output) = history.split_at(history.len().saturating_sub(request.output_position));
    if let Some(allowed) = &adjustments.allowed_token_ids {
        allow_only(row, allowed);
    }
    for word in &adjustments.bad_words {
        if let Some((&last, start)) = word.split_last()
            && output.ends_with(start)
        {
            forbid(row, last);
        }
    }
    if request.output_position < adjustments.min_tokens {
        adjustments.stop_token_ids.iter().for_each(|&id| forbid(row, id));
    }
    for &(id, bias) in &adjustments.logit_bias {
        if let Some(logit) = row.get_mut(id as usize) {
            *logit += bias;
        }
    }
    if adjustments.penalises() {
        penalise(row, adjustments, prompt, output);
    }
}

fn forbid(row: &mut [f32], id: u32) {
    if let Some(logit) = row.get_mut(id as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

fn allow_only(row: &mut [f32], allowed: &[u32]) {
    let kept: Vec<(usize, f32)> = allowed.iter().filter_map(|&id| Some((id as usize, *row.get(id as usize)?))).collect();
    row.fill(f32::NEG_INFINITY);
    for (id, logit) in kept {
        row[id] = logit;
    }
}

/// Each token of the history once: repetition first, then frequency, then presence.
fn penalise(row: &mut [f32], penalties: &LogitAdjustments, prompt: &[u32], output: &[u32]) {
    let mut counts = vec![0u32; row.len()];
    for &id in output {
        if let Some(count) = counts.get_mut(id as usize) {
            *count += 1;
        }
    }
    let from_prompt: &[u32] = if penalties.repetition_penalty == 1.0 { &[] } else { prompt };
    for &id in output.iter().chain(from_prompt) {
        let Some(count) = counts.get_mut(id as usize) else { continue };
        let count = mem::replace(count, DONE);
        if count == DONE {
            continue;
        }
        let logit = &mut row[id as usize];
        *logit = if *logit > 0.0 { *logit / penalties.repetition_penalty } else { *logit * penalties.repetition_penalty };
        if count > 0 {
            *logit -= penalties.frequency_penalty * count as f32;
            *logit -= penalties.presence_penalty;
        }
    }
}

#[cfg(test)]
#[path = "adjust_tests.rs"]
mod tests;
