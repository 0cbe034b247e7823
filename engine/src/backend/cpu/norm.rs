//! Norms, activation, embedding and row gathering: one pass over rows, bound by memory.
//! Small batches run on the caller alone, since waking the others would take longer.

use std::ops::Range;

use super::{
    Cpu,
    buffer::{CpuBuffer, CpuVector},
    isa::{Kernel, LANES, Simd, math::exp},
    matrix::CpuMatrix,
    scratch::Shared,
};
use crate::backend::RaggedBatch;

/// Values from which on an elementwise operation is shared among the threads.
const PARALLEL: usize = 16 * 1024;

/// Sum of squares, lane by lane in order.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut sums = s.splat(0.0);
    for vector in vectors {
        // SAFETY: sixteen values.
        let v = unsafe { s.load(vector.as_ptr()) };
        sums = s.fma(v, v, sums);
    }
    rest.iter().fold(s.sum(sums), |sum, v| sum + v * v)
}

/// `x * weight / rms(x)` into `out`, which may be what `x` was copied from.
#[inline(always)]
fn normalise<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of_squares(s, x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// In place.
#[inline(always)]
pub(super) fn normalise_in_place<S: Simd>(s: S, x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = 1.0 / (sum_of_squares(s, x) / x.len() as f32 + eps).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

pub(super) fn rms_norm(cpu: &Cpu, x: &CpuBuffer, weight: &CpuVector, eps: f32, out: &mut CpuBuffer) {
    assert_eq!(x.cols(), weight.as_slice().len(), "length of the norm's weight");
    out.reshape(x.rows(), x.cols());
    let out = Shared::new(out.as_mut_slice());
    cpu.pool.split(x.rows(), x.as_slice().len() >= PARALLEL, |_, rows| {
        cpu.level.run(RmsNorm { x, weight: weight.as_slice(), eps, rows, out });
    });
}

struct RmsNorm<'a> {
    x: &'a CpuBuffer,
    weight: &'a [f32],
    eps: f32,
    rows: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.x.cols();
        for row in self.rows {
            // SAFETY: this row is no other thread's.
            normalise(s, self.x.row(row), self.weight, self.eps, unsafe { self.out.part(row * cols, cols) });
        }
    }
}

pub(super) fn add_rms_norm(cpu: &Cpu, x: &mut CpuBuffer, delta: &CpuBuffer, weight: &CpuVector, eps: f32, out: &mut CpuBuffer) {
    assert_eq!((x.rows(), x.cols()), (delta.rows(), delta.cols()), "shapes of x and delta");
    assert_eq!(x.cols(), weight.as_slice().len(), "length of the norm's weight");
    out.reshape(x.rows(), x.cols());
    let (rows, cols, parallel) = (x.rows(), x.cols(), x.as_slice().len() >= PARALLEL);
    let (x, out) = (Shared::new(x.as_mut_slice()), Shared::new(out.as_mut_slice()));
    cpu.pool.split(rows, parallel, |_, rows| {
        cpu.level.run(AddRmsNorm { x, delta, cols, weight: weight.as_slice(), eps, rows, out });
    });
}

struct AddRmsNorm<'a> {
    x: Shared<f32>,
    delta: &'a CpuBuffer,
    cols: usize,
    weight: &'a [f32],
    eps: f32,
    rows: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for AddRmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows {
            // SAFETY: this row is no other thread's.
            let (x, out) = unsafe { (self.x.part(row * self.cols, self.cols), self.out.part(row * self.cols, self.cols)) };
            for (x, delta) in x.iter_mut().zip(self.delta.row(row)) {
                *x += delta;
            }
            normalise(s, x, self.weight, self.eps, out);
        }
    }
}

pub(super) fn silu_mul(cpu: &Cpu, x: &CpuBuffer, out: &mut CpuBuffer) {
    assert!(x.cols().is_multiple_of(2), "gate and up have equal width");
    out.reshape(x.rows(), x.cols() / 2);
    let out = Shared::new(out.as_mut_slice());
    cpu.pool.split(x.rows(), x.as_slice().len() >= PARALLEL, |_, rows| cpu.level.run(SiluMul { x, rows, out }));
}

struct SiluMul<'a> {
    x: &'a CpuBuffer,
    rows: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.x.cols() / 2;
        for row in self.rows {
            let (gate, up) = self.x.row(row).split_at(cols);
            // SAFETY: this row is no other thread's.
            let out = unsafe { self.out.part(row * cols, cols) };
            for ((gate, up), out) in gate.chunks(LANES).zip(up.chunks(LANES)).zip(out.chunks_mut(LANES)) {
                if let [LANES, LANES, LANES] = [gate.len(), up.len(), out.len()] {
                    // SAFETY: sixteen values each.
                    unsafe { s.store(silu_mul_vector(s, s.load(gate.as_ptr()), s.load(up.as_ptr())), out.as_mut_ptr()) };
                } else {
                    let (mut gates, mut ups) = ([0.0; LANES], [0.0; LANES]);
                    gates[..gate.len()].copy_from_slice(gate);
                    ups[..up.len()].copy_from_slice(up);
                    // SAFETY: sixteen values each.
                    let product = unsafe { silu_mul_vector(s, s.load(gates.as_ptr()), s.load(ups.as_ptr())) };
                    out.copy_from_slice(&s.to_array(product)[..out.len()]);
                }
            }
        }
    }
}

/// `gate / (1 + e^-gate) * up`
#[inline(always)]
fn silu_mul_vector<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    let denominator = s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), gate)));
    s.mul(s.div(gate, denominator), up)
}

pub(super) fn embed(cpu: &Cpu, batch: &RaggedBatch, table: &CpuMatrix, out: &mut CpuBuffer) {
    let cols = table.in_features();
    out.reshape(batch.num_tokens(), cols);
    let to = Shared::new(out.as_mut_slice());
    cpu.pool.split(batch.num_tokens(), batch.num_tokens() > 1, |_, rows| {
        for row in rows {
            // SAFETY: this row is no other thread's.
            table.copy_row(batch.tokens[row] as usize, unsafe { to.part(row * cols, cols) });
        }
    });
}

pub(super) fn gather_logits_rows(batch: &RaggedBatch, x: &CpuBuffer, delta: Option<&CpuBuffer>, out: &mut CpuBuffer) {
    out.reshape(batch.logits_rows.len(), x.cols());
    for (out, &row) in out.as_mut_slice().chunks_exact_mut(x.cols()).zip(&batch.logits_rows) {
        out.copy_from_slice(x.row(row as usize));
        if let Some(delta) = delta {
            out.iter_mut().zip(delta.row(row as usize)).for_each(|(out, delta)| *out += delta);
        }
    }
}
