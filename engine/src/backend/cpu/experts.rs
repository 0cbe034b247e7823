//! A mixture of experts: rows are grouped by expert, and each expert that has any multiplies its rows at once.
//!
//! A row's routing, its products and the order in which its experts are summed depend on the row alone, so that a result is the
//! same to the last bit whatever else is in the batch.

use super::{Cpu, activation::gated_activate, buffer::CpuBuffer, linear::linear, matrix::CpuMatrix, norm::PARALLEL, scratch::Shared};
use crate::backend::{Experts, Routing};

/// What one expert works on, kept from call to call.
#[derive(Default)]
pub(super) struct Buffers {
    /// The expert's rows of the input.
    rows: CpuBuffer,
    gate_up: CpuBuffer,
    activated: CpuBuffer,
    down: CpuBuffer,
}

/// One row that an expert works on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Visit {
    row: usize,
    weight: f32,
}

pub(super) fn experts(cpu: &Cpu, x: &CpuBuffer, logits: &CpuBuffer, experts: &Experts<Vec<CpuMatrix>>, out: &mut CpuBuffer) {
    assert_eq!((x.rows(), experts.gate_up.len()), (logits.rows(), logits.cols()), "rows of x and logits, number of experts");
    assert_eq!(experts.gate_up.len(), experts.down.len(), "number of experts");
    out.reshape(x.rows(), x.cols());
    out.as_mut_slice().fill(0.0);
    let visits = visits(cpu, logits, experts.routing);
    let buffers = &mut *cpu.experts.lock();
    for ((visits, gate_up), down) in visits.iter().zip(&experts.gate_up).zip(&experts.down) {
        if visits.is_empty() {
            continue;
        }
        gather(cpu, x, visits, &mut buffers.rows);
        linear(cpu, &buffers.rows, gate_up, None, &mut buffers.gate_up);
        gated_activate(cpu, experts.activation, &buffers.gate_up, &mut buffers.activated);
        linear(cpu, &buffers.activated, down, None, &mut buffers.down);
        scatter(cpu, &buffers.down, visits, out);
    }
}

/// Per expert, the rows that are routed to it, in order.
fn visits(cpu: &Cpu, logits: &CpuBuffer, routing: Routing) -> Vec<Vec<Visit>> {
    let top_k = routing.top_k.min(logits.cols());
    let mut chosen = vec![(0, 0.0); logits.rows() * top_k];
    let to = Shared::new(&mut chosen);
    cpu.pool.split(logits.rows(), logits.as_slice().len() >= PARALLEL, |_, rows| {
        let mut probabilities = vec![0.0; logits.cols()];
        for row in rows {
            // SAFETY: this row's part is no other thread's.
            choose(logits.row(row), routing.renormalize, &mut probabilities, unsafe { to.part(row * top_k, top_k) });
        }
    });
    let mut visits = vec![Vec::new(); logits.cols()];
    for (i, &(expert, weight)) in chosen.iter().enumerate() {
        visits[expert].push(Visit { row: i / top_k, weight });
    }
    visits
}

/// The experts of highest probability with their weights, the likeliest first; of equal ones the first comes before the others.
fn choose(logits: &[f32], renormalize: bool, probabilities: &mut [f32], chosen: &mut [(usize, f32)]) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for (probability, logit) in probabilities.iter_mut().zip(logits) {
        *probability = (logit - max).exp();
        total += *probability;
    }
    probabilities.iter_mut().for_each(|probability| *probability /= total);
    const TAKEN: f32 = -1.0;
    for chosen in &mut *chosen {
        let mut best: Option<usize> = None;
        for (expert, probability) in probabilities.iter().enumerate() {
            if *probability != TAKEN && best.is_none_or(|best| *probability > probabilities[best]) {
                best = Some(expert);
            }
        }
        let best = best.expect("no more experts are chosen than there are");
        *chosen = (best, probabilities[best]);
        probabilities[best] = TAKEN;
    }
    if renormalize {
        let total: f32 = chosen.iter().map(|(_, weight)| weight).sum();
        chosen.iter_mut().for_each(|(_, weight)| *weight /= total);
    }
}

fn gather(cpu: &Cpu, x: &CpuBuffer, visits: &[Visit], out: &mut CpuBuffer) {
    let cols = x.cols();
    out.reshape(visits.len(), cols);
    let parallel = out.as_slice().len() >= PARALLEL;
    let out = Shared::new(out.as_mut_slice());
    cpu.pool.split(visits.len(), parallel, |_, range| {
        for i in range {
            // SAFETY: this row is no other thread's.
            unsafe { out.part(i * cols, cols) }.copy_from_slice(x.row(visits[i].row));
        }
    });
}

/// Adds each row, weighted, to the row of `out` that it came from.
fn scatter(cpu: &Cpu, x: &CpuBuffer, visits: &[Visit], out: &mut CpuBuffer) {
    let cols = x.cols();
    let out = Shared::new(out.as_mut_slice());
    cpu.pool.split(visits.len(), x.as_slice().len() >= PARALLEL, |_, range| {
        for i in range {
            let Visit { row, weight } = visits[i];
            // SAFETY: an expert visits a row once, so this row is no other thread's.
            let out = unsafe { out.part(row * cols, cols) };
            out.iter_mut().zip(x.row(i)).for_each(|(out, x)| *out += weight * x);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(logits: &[f32], top_k: usize, renormalize: bool) -> Vec<(usize, f32)> {
        let (mut probabilities, mut chosen) = (vec![0.0; logits.len()], vec![(0, 0.0); top_k]);
        choose(logits, renormalize, &mut probabilities, &mut chosen);
        chosen
    }

    #[test]
    fn ties_go_to_the_first() {
        let experts = |logits: &[f32], top_k| chosen(logits, top_k, true).into_iter().map(|(expert, _)| expert).collect::<Vec<_>>();
        assert_eq!(experts(&[1.0, 3.0, 3.0, 3.0], 2), [1, 2]);
        assert_eq!(experts(&[0.0; 8], 3), [0, 1, 2]);
        // Different logits whose probabilities round to the same number.
        assert_eq!(experts(&[-200.0, 0.0, -120.0, -110.0], 3), [1, 0, 2]);
        assert_eq!(chosen(&[1.0, 3.0, 3.0, 3.0], 2, true), [(1, 0.5), (2, 0.5)]);
    }

    #[test]
    fn no_expert_is_chosen_twice() {
        let experts: Vec<usize> = chosen(&[f32::NAN, 1.0, 2.0], 3, true).into_iter().map(|(expert, _)| expert).collect();
        assert_eq!(experts, [0, 1, 2]);
    }

    #[test]
    fn weights_are_probabilities_or_their_shares() {
        let close = |found: Vec<(usize, f32)>, expected: [(usize, f32); 2]| {
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6, "{found:?}, not {expected:?}");
            }
        };
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        close(chosen(&logits, 2, false), [(2, 0.625), (1, 0.25)]);
        close(chosen(&logits, 2, true), [(2, 5.0 / 7.0), (1, 2.0 / 7.0)]);
    }
}
