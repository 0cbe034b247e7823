//! Linear layers: a few rows are bound by reading the weights once, many rows by the product itself.
//!
//! Rows are first packed as the product wants them, in blocks of the inner dimension; then each thread takes panels of
//! output features, and for each panel all rows block by block, so that a block of weights stays in the first-level
//! cache. What is summed in which order depends on neither rows nor threads (see [`super::product`]).

use std::ops::Range;

use super::{
    Cpu,
    buffer::{CpuBuffer, CpuVector},
    isa::{Kernel, LANES, Simd},
    matrix::{CpuMatrix, PANEL},
    product::{BLOCK, BLOCK_PAIRS, Bf16Dot, Bf16Wide, Columns, F16Wide, F32Wide, Kind, Out, Pair, Piece, ROW_PAIRS, Then, product},
    scratch::Shared,
};
use crate::backend::DType;

/// Up to this many values, every thread packs the rows for itself: cheaper than waiting for each other.
const PACK_ALONE: usize = 16 * 1024;
/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4096;
/// Rows below which the work on a panel is not divided further.
const ROW_CHUNK: usize = 48;

pub(super) fn linear(cpu: &Cpu, x: &CpuBuffer, weight: &CpuMatrix, bias: Option<&CpuVector>, out: &mut CpuBuffer) {
    assert_eq!(x.cols(), weight.in_features(), "columns of x and of the weight");
    assert!(bias.is_none_or(|b| b.as_slice().len() == weight.out_features()), "length of the bias");
    out.reshape(x.rows(), weight.out_features());
    match weight.dtype() {
        _ if x.rows() == 0 => {}
        DType::BF16 if cpu.dot_bf16 => multiply::<Bf16Dot>(cpu, x, weight, bias, out),
        DType::BF16 => multiply::<Bf16Wide>(cpu, x, weight, bias, out),
        DType::F16 => multiply::<F16Wide>(cpu, x, weight, bias, out),
        DType::F32 => multiply::<F32Wide>(cpu, x, weight, bias, out),
    }
}

fn multiply<K: Kind>(cpu: &Cpu, x: &CpuBuffer, weight: &CpuMatrix, bias: Option<&CpuVector>, out: &mut CpuBuffer) {
    let rows = x.rows();
    let packed_len = weight.num_pairs().div_ceil(BLOCK_PAIRS) * rows * ROW_PAIRS;
    let alone = rows * x.cols() <= PACK_ALONE;
    let mut shared = cpu.shared.lock();
    let together = if alone { &mut [] } else { shared.slice::<K::A>(packed_len) };
    let to = Shared::new(together);
    if !alone {
        cpu.pool.split(rows, true, |_, rows| cpu.level.run(Pack { x, rows, to }));
    }

    let (panels, threads) = (weight.num_panels(), cpu.pool.threads());
    // Few panels for many threads: rows are divided too.
    let chunks = if panels >= 8 * threads { 1 } else { rows.div_ceil(ROW_CHUNK).min(threads) };
    let out = Shared::new(out.as_mut_slice());
    let bias = bias.map(CpuVector::as_slice);
    cpu.pool.share(panels * chunks, |thread, items| {
        let own = &mut *cpu.own.lock(thread);
        let mut packed = to;
        if alone {
            packed = Shared::new(own.packed.slice(packed_len));
            cpu.level.run(Pack { x, rows: 0..rows, to: packed });
        }
        let sums = own.sums.slice(rows.div_ceil(chunks) * PANEL);
        for item in items {
            let (panel, chunk) = (item / chunks, item % chunks);
            let range = rows * chunk / chunks..rows * (chunk + 1) / chunks;
            cpu.level.run(Multiply::<K> { packed, all_rows: rows, rows: range, weight, panel, bias, sums: &mut *sums, out });
        }
    });
}

/// Packs `rows` of `x` to `[block][row][ROW_PAIRS]`.
struct Pack<'a, A> {
    x: &'a CpuBuffer,
    rows: Range<usize>,
    to: Shared<A>,
}

impl<A: Pair> Kernel for Pack<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for row in self.rows {
            for (block, values) in self.x.row(row).chunks(BLOCK).enumerate() {
                // SAFETY: `to` has room for all blocks of all rows, and this row is no other thread's.
                A::pack(values, unsafe { self.to.part((block * self.x.rows() + row) * ROW_PAIRS, ROW_PAIRS) });
            }
        }
    }
}

/// Some rows times one panel.
struct Multiply<'a, K: Kind> {
    packed: Shared<K::A>,
    all_rows: usize,
    rows: Range<usize>,
    weight: &'a CpuMatrix,
    panel: usize,
    bias: Option<&'a [f32]>,
    /// `[rows][PANEL]`: sums of the blocks so far, so that `out` is written once.
    sums: &'a mut [f32],
    out: Shared<f32>,
}

impl<K: Kind> Kernel for Multiply<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (weight, rows) = (self.weight, self.rows.len());
        let (features, stride) = (weight.out_features(), weight.pair_bytes());
        let column = self.panel * PANEL;
        let whole = column + PANEL <= features;
        let panel = weight.panel(self.panel);
        let blocks = weight.num_pairs().div_ceil(BLOCK_PAIRS);
        let sums = self.sums.as_mut_ptr();
        for block in 0..blocks {
            let pairs = BLOCK_PAIRS.min(weight.num_pairs() - block * BLOCK_PAIRS);
            let then = if block == 0 { Then::Store } else { Then::AddTo { before: sums, stride: PANEL } };
            // SAFETY: rows are packed for all blocks, the panel holds `pairs` more pairs from here, `sums` has a place for each row, and these
            // rows and columns of `out` are no other thread's.
            unsafe {
                let out = if block + 1 == blocks && whole {
                    let bias = self.bias.map_or(std::ptr::null(), |b| b[column..column + PANEL].as_ptr());
                    Out { start: self.out.get().add(self.rows.start * features + column), stride: features, then, bias }
                } else {
                    Out { start: sums, stride: PANEL, then, bias: std::ptr::null() }
                };
                let a = self.packed.get().add((block * self.all_rows + self.rows.start) * ROW_PAIRS).cast_const();
                let b = panel.as_ptr().add(block * BLOCK_PAIRS * stride);
                let columns = Columns { vectors: 2, segments: 1, pairs, stride, ahead_stride: stride };
                let piece = |vector: usize, _| {
                    let start = b.wrapping_add(vector * LANES * 4);
                    Piece { start, ahead: start.wrapping_add(AHEAD) }
                };
                product::<S, K>(s, a, rows, columns, piece, out);
            }
        }
        if !whole {
            for (i, sums) in self.sums.chunks_exact(PANEL).take(rows).enumerate() {
                // SAFETY: these rows and columns are no other thread's.
                let out = unsafe { self.out.part((self.rows.start + i) * features + column, features - column) };
                for (j, out) in out.iter_mut().enumerate() {
                    *out = sums[j] + self.bias.map_or(0.0, |b| b[column + j]);
                }
            }
        }
    }
}
