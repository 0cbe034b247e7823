//! Norms: one pass over rows, bound by memory.
//! Small batches run on the caller alone, since waking the others would take longer.

use std::ops::Range;

use super::{
    Cpu,
    buffer::{CpuBuffer, CpuVector},
    isa::{Kernel, LANES, Simd},
    scratch::Shared,
};
use crate::backend::Norm;

/// Values from which on an elementwise operation is shared among the threads.
pub(super) const PARALLEL: usize = 16 * 1024;

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

/// Sum, lane by lane in order.
#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut sums = s.splat(0.0);
    for vector in vectors {
        // SAFETY: sixteen values.
        sums = s.add(sums, unsafe { s.load(vector.as_ptr()) });
    }
    rest.iter().fold(s.sum(sums), |sum, v| sum + v)
}

/// `x * weight / rms(x)` into `out`, which may be what `x` was copied from.
#[inline(always)]
fn normalise<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of_squares(s, x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// `(x - mean(x)) / sqrt(var(x)) * weight + bias` into `out`.
#[inline(always)]
fn normalise_centred<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum(s, x) / x.len() as f32;
    for (out, x) in out.iter_mut().zip(x) {
        *out = x - mean;
    }
    let scale = 1.0 / (sum_of_squares(s, out) / x.len() as f32 + eps).sqrt();
    for ((out, weight), bias) in out.iter_mut().zip(weight).zip(bias) {
        *out = *out * scale * weight + bias;
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

pub(super) fn norm(cpu: &Cpu, x: &CpuBuffer, norm: &Norm<CpuVector>, out: &mut CpuBuffer) {
    check(x, norm);
    out.reshape(x.rows(), x.cols());
    let out = Shared::new(out.as_mut_slice());
    cpu.pool.split(x.rows(), x.as_slice().len() >= PARALLEL, |_, rows| cpu.level.run(NormRows { x, norm, rows, out }));
}

fn check(x: &CpuBuffer, norm: &Norm<CpuVector>) {
    let (weight, bias) = match norm {
        Norm::Rms { weight, .. } => (weight, weight),
        Norm::Layer { weight, bias, .. } => (weight, bias),
    };
    assert_eq!((x.cols(), x.cols()), (weight.as_slice().len(), bias.as_slice().len()), "length of the norm's weight and bias");
}

#[inline(always)]
fn norm_row<S: Simd>(s: S, x: &[f32], norm: &Norm<CpuVector>, out: &mut [f32]) {
    match norm {
        Norm::Rms { weight, eps } => normalise(s, x, weight.as_slice(), *eps, out),
        Norm::Layer { weight, bias, eps } => normalise_centred(s, x, weight.as_slice(), bias.as_slice(), *eps, out),
    }
}

struct NormRows<'a> {
    x: &'a CpuBuffer,
    norm: &'a Norm<CpuVector>,
    rows: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.x.cols();
        for row in self.rows {
            // SAFETY: this row is no other thread's.
            norm_row(s, self.x.row(row), self.norm, unsafe { self.out.part(row * cols, cols) });
        }
    }
}

pub(super) fn add_norm(cpu: &Cpu, x: &mut CpuBuffer, delta: &CpuBuffer, norm: &Norm<CpuVector>, out: &mut CpuBuffer) {
    assert_eq!((x.rows(), x.cols()), (delta.rows(), delta.cols()), "shapes of x and delta");
    check(x, norm);
    out.reshape(x.rows(), x.cols());
    let (rows, cols, parallel) = (x.rows(), x.cols(), x.as_slice().len() >= PARALLEL);
    let (x, out) = (Shared::new(x.as_mut_slice()), Shared::new(out.as_mut_slice()));
    cpu.pool.split(rows, parallel, |_, rows| cpu.level.run(AddNormRows { x, delta, cols, norm, rows, out }));
}

struct AddNormRows<'a> {
    x: Shared<f32>,
    delta: &'a CpuBuffer,
    cols: usize,
    norm: &'a Norm<CpuVector>,
    rows: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for AddNormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows {
            // SAFETY: this row is no other thread's.
            let (x, out) = unsafe { (self.x.part(row * self.cols, self.cols), self.out.part(row * self.cols, self.cols)) };
            for (x, delta) in x.iter_mut().zip(self.delta.row(row)) {
                *x += delta;
            }
            norm_row(s, x, self.norm, out);
        }
    }
}
