//! Activations, alone or as the gate of a product, and soft caps: one pass over rows, bound by memory.

use std::{f32::consts::FRAC_1_SQRT_2, ops::Range};

use super::{
    Cpu,
    buffer::CpuBuffer,
    isa::{
        Kernel, LANES, Simd,
        math::{erf, exp, tanh},
    },
    norm::PARALLEL,
    scratch::Shared,
};
use crate::backend::Activation;

/// What is done to each element.
#[derive(Clone, Copy)]
enum Map {
    Activation(Activation),
    SoftCap(f32),
}

impl Map {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F) -> S::F {
        match self {
            Self::Activation(Activation::Silu) => over_one_plus_exp(s, x, x),
            Self::Activation(Activation::Gelu) => {
                s.mul(s.mul(x, s.splat(0.5)), s.add(s.splat(1.0), erf(s, s.mul(x, s.splat(FRAC_1_SQRT_2)))))
            }
            // tanh(y) = 2 / (1 + e^-2y) - 1, so that half of what it adds to 1 is a sigmoid.
            Self::Activation(Activation::GeluTanh) => {
                const TWICE_SQRT_2_BY_PI: f32 = 1.595_769_2;
                let cubic = s.fma(s.mul(s.mul(x, x), x), s.splat(0.044_715), x);
                over_one_plus_exp(s, x, s.mul(cubic, s.splat(TWICE_SQRT_2_BY_PI)))
            }
            Self::SoftCap(cap) => s.mul(tanh(s, s.div(x, s.splat(cap))), s.splat(cap)),
        }
    }
}

/// `x / (1 + e^-y)`
#[inline(always)]
fn over_one_plus_exp<S: Simd>(s: S, x: S::F, y: S::F) -> S::F {
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), y))))
}

pub(super) fn activate(cpu: &Cpu, f: Activation, x: &mut CpuBuffer) {
    map(cpu, Map::Activation(f), x);
}

pub(super) fn soft_cap(cpu: &Cpu, x: &mut CpuBuffer, cap: f32) {
    map(cpu, Map::SoftCap(cap), x);
}

fn map(cpu: &Cpu, map: Map, x: &mut CpuBuffer) {
    let (rows, cols, parallel) = (x.rows(), x.cols(), x.as_slice().len() >= PARALLEL);
    let x = Shared::new(x.as_mut_slice());
    cpu.pool.split(rows, parallel, |_, rows| cpu.level.run(MapRows { map, x, cols, rows }));
}

struct MapRows {
    map: Map,
    x: Shared<f32>,
    cols: usize,
    rows: Range<usize>,
}

impl Kernel for MapRows {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.rows {
            // SAFETY: this row is no other thread's.
            let (vectors, rest) = unsafe { self.x.part(row * self.cols, self.cols) }.as_chunks_mut::<LANES>();
            for vector in vectors {
                // SAFETY: sixteen values.
                unsafe { s.store(self.map.apply(s, s.load(vector.as_ptr())), vector.as_mut_ptr()) };
            }
            let mut last = [0.0; LANES];
            last[..rest.len()].copy_from_slice(rest);
            // SAFETY: sixteen values.
            let last = s.to_array(self.map.apply(s, unsafe { s.load(last.as_ptr()) }));
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

pub(super) fn gated_activate(cpu: &Cpu, f: Activation, x: &CpuBuffer, out: &mut CpuBuffer) {
    assert!(x.cols().is_multiple_of(2), "gate and up have equal width");
    out.reshape(x.rows(), x.cols() / 2);
    let out = Shared::new(out.as_mut_slice());
    cpu.pool.split(x.rows(), x.as_slice().len() >= PARALLEL, |_, rows| cpu.level.run(GateRows { map: Map::Activation(f), x, rows, out }));
}

struct GateRows<'a> {
    map: Map,
    x: &'a CpuBuffer,
    rows: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for GateRows<'_> {
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
                    unsafe { s.store(s.mul(self.map.apply(s, s.load(gate.as_ptr())), s.load(up.as_ptr())), out.as_mut_ptr()) };
                } else {
                    let (mut gates, mut ups) = ([0.0; LANES], [0.0; LANES]);
                    gates[..gate.len()].copy_from_slice(gate);
                    ups[..up.len()].copy_from_slice(up);
                    // SAFETY: sixteen values each.
                    let product = unsafe { s.mul(self.map.apply(s, s.load(gates.as_ptr())), s.load(ups.as_ptr())) };
                    out.copy_from_slice(&s.to_array(product)[..out.len()]);
                }
            }
        }
    }
}
