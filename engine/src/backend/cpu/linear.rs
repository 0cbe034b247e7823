//! Linear layers: a few rows are bound by reading the weights once, many rows by the product itself.
//!
//! Rows are first packed as the product wants them, in blocks of the inner dimension; then each thread takes panels of
//! output features, and for each panel all rows block by block, so that a block of weights stays in the first-level
//! cache. What is summed in which order depends on neither rows nor threads (see [`super::product`]).

use std::ops::Range;

use super::{
    Cpu,
    buffer::{CpuBuffer, CpuVector},
    isa::{Kernel, LANES, Level, Simd},
    matrix::{CpuMatrix, PANEL},
    product::{BLOCK, BLOCK_PAIRS, Columns, Kind, Out, Pair, Piece, ROW_PAIRS, Then, product},
    scratch::Shared,
};

/// Up to this many values, every thread packs the rows for itself: cheaper than waiting for each other.
const PACK_ALONE: usize = 16 * 1024;
/// Rows below which the work on a panel is not divided further.
const ROW_CHUNK: usize = 48;

/// In [`Panels::order`]: a column that belongs to no input feature, and counts as zero.
pub(super) const NO_COLUMN: u32 = u32::MAX;

/// The arguments of a product with some rows of the weight.
#[derive(Clone, Copy)]
pub(super) struct Linear<'a> {
    x: &'a CpuBuffer,
    /// Of these features.
    bias: Option<&'a [f32]>,
    out: Shared<f32>,
    /// Where these features begin in a row of `out`, and how long such a row is.
    first: usize,
    width: usize,
}

/// Output features in panels of [`PANEL`], multiplied as `K`.
pub(super) trait Panels<K: Kind>: Sync {
    /// Bytes of scratch that a product needs.
    const SCRATCH: usize;

    fn features(&self) -> usize;

    /// Pairs of columns.
    fn pairs(&self) -> usize;

    /// The input feature of each column, or [`NO_COLUMN`]; `None` where columns are input features.
    fn order(&self) -> Option<&[u32]> {
        None
    }

    /// `rows` rows of `a`, [`ROW_PAIRS`] apart, times block `block` of panel `panel`.
    ///
    /// # Safety
    /// Rows must hold the block's pairs, and `out` must have a place for every row and column that is not otherwise in use.
    #[allow(clippy::too_many_arguments)]
    unsafe fn product(&self, level: Level, panel: usize, block: usize, a: *const K::A, rows: usize, out: Out, scratch: &mut [u8]);
}

/// The product of rows with two vectors of columns as they lie in memory.
pub(super) struct Product<K: Kind> {
    pub a: *const K::A,
    pub rows: usize,
    /// The first pair of the first vector; the second vector lies beside it.
    pub start: *const u8,
    pub pairs: usize,
    /// Bytes from one pair to the next.
    pub stride: usize,
    /// How far ahead memory is asked for, in bytes.
    pub ahead: usize,
    pub out: Out,
}

impl<K: Kind> Product<K> {
    /// # Safety
    /// As for [`product`].
    pub(super) unsafe fn run(self, level: Level) {
        level.run(self);
    }
}

impl<K: Kind> Kernel for Product<K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if const { K::NEEDS_DOT_BF16 && !S::DOT_BF16 } {
            unreachable!("a product that this instruction set does not have");
        }
        let columns = Columns { vectors: 2, segments: 1, pairs: self.pairs, stride: self.stride, ahead_stride: self.stride };
        let piece = |vector: usize, _| {
            let start = self.start.wrapping_add(vector * LANES * 4);
            Piece { start, ahead: start.wrapping_add(self.ahead) }
        };
        // SAFETY: promised to `Product::run`, the only caller.
        unsafe { product::<S, K>(s, self.a, self.rows, columns, piece, self.out) }
    }
}

pub(super) fn linear(cpu: &Cpu, x: &CpuBuffer, weight: &CpuMatrix, bias: Option<&CpuVector>, out: &mut CpuBuffer) {
    assert_eq!(x.cols(), weight.in_features(), "columns of x and of the weight");
    assert!(bias.is_none_or(|b| b.as_slice().len() == weight.out_features()), "length of the bias");
    out.reshape(x.rows(), weight.out_features());
    if x.rows() == 0 {
        return;
    }
    let out = Shared::new(out.as_mut_slice());
    for (first, segment) in weight.segments() {
        let bias = bias.map(|b| &b.as_slice()[first..][..segment.features()]);
        segment.multiply(cpu, Linear { x, bias, out, first, width: weight.out_features() });
    }
}

pub(super) fn multiply<K: Kind, P: Panels<K>>(cpu: &Cpu, weight: &P, call: Linear<'_>) {
    let (x, rows) = (call.x, call.x.rows());
    let packed_len = weight.pairs().div_ceil(BLOCK_PAIRS) * rows * ROW_PAIRS;
    let alone = rows * x.cols() <= PACK_ALONE;
    let mut shared = cpu.shared.lock();
    let together = if alone { &mut [] } else { shared.slice::<K::A>(packed_len) };
    let (to, order) = (Shared::new(together), weight.order());
    if !alone {
        cpu.pool.split(rows, true, |_, rows| cpu.level.run(Pack { x, order, rows, to }));
    }

    let (panels, threads) = (weight.features().div_ceil(PANEL), cpu.pool.threads());
    // Few panels for many threads: rows are divided too.
    let chunks = if panels >= 8 * threads { 1 } else { rows.div_ceil(ROW_CHUNK).min(threads) };
    cpu.pool.share(panels * chunks, |thread, items| {
        let own = &mut *cpu.own.lock(thread);
        let mut packed = to;
        if alone {
            packed = Shared::new(own.packed.slice(packed_len));
            cpu.level.run(Pack { x, order, rows: 0..rows, to: packed });
        }
        let sums = own.sums.slice(rows.div_ceil(chunks) * PANEL);
        let scratch = own.unpacked.slice(P::SCRATCH);
        for item in items {
            let (panel, chunk) = (item / chunks, item % chunks);
            let rows = rows * chunk / chunks..rows * (chunk + 1) / chunks;
            Multiply { packed, rows, weight, panel, call, sums: &mut *sums, scratch: &mut *scratch }.run(cpu.level);
        }
    });
}

/// Packs `rows` of `x` to `[block][row][ROW_PAIRS]`.
struct Pack<'a, A> {
    x: &'a CpuBuffer,
    order: Option<&'a [u32]>,
    rows: Range<usize>,
    to: Shared<A>,
}

impl<A: Pair> Kernel for Pack<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for row in self.rows {
            let x = self.x.row(row);
            // SAFETY: `to` has room for all blocks of all rows, and this row is no other thread's.
            let to = |block: usize| unsafe { self.to.part((block * self.x.rows() + row) * ROW_PAIRS, ROW_PAIRS) };
            let Some(order) = self.order else {
                x.chunks(BLOCK).enumerate().for_each(|(block, values)| A::pack(values, to(block)));
                continue;
            };
            for (block, columns) in order.chunks(BLOCK).enumerate() {
                let mut values = [0.0; BLOCK];
                for (value, &column) in values.iter_mut().zip(columns) {
                    *value = x.get(column as usize).copied().unwrap_or(0.0);
                }
                A::pack(&values[..columns.len()], to(block));
            }
        }
    }
}

/// Some rows times one panel.
struct Multiply<'a, K: Kind, P> {
    packed: Shared<K::A>,
    rows: Range<usize>,
    weight: &'a P,
    panel: usize,
    call: Linear<'a>,
    /// `[rows][PANEL]`: sums of the blocks so far, so that `out` is written once.
    sums: &'a mut [f32],
    scratch: &'a mut [u8],
}

impl<K: Kind, P: Panels<K>> Multiply<'_, K, P> {
    fn run(self, level: Level) {
        let (call, rows, features) = (self.call, self.rows.len(), self.weight.features());
        let column = self.panel * PANEL;
        let whole = column + PANEL <= features;
        let blocks = self.weight.pairs().div_ceil(BLOCK_PAIRS);
        let sums = self.sums.as_mut_ptr();
        for block in 0..blocks {
            let then = if block == 0 { Then::Store } else { Then::AddTo { before: sums, stride: PANEL } };
            // SAFETY: rows are packed for all blocks, `sums` has a place for each row, and these rows and columns of `out` are no other
            // thread's.
            unsafe {
                let out = if block + 1 == blocks && whole {
                    let bias = call.bias.map_or(std::ptr::null(), |b| b[column..column + PANEL].as_ptr());
                    let start = call.out.get().add(self.rows.start * call.width + call.first + column);
                    Out { start, stride: call.width, then, bias }
                } else {
                    Out { start: sums, stride: PANEL, then, bias: std::ptr::null() }
                };
                let a = self.packed.get().add((block * call.x.rows() + self.rows.start) * ROW_PAIRS).cast_const();
                self.weight.product(level, self.panel, block, a, rows, out, self.scratch);
            }
        }
        if !whole {
            for (i, sums) in self.sums.chunks_exact(PANEL).take(rows).enumerate() {
                // SAFETY: these rows and columns are no other thread's.
                let out = unsafe { call.out.part((self.rows.start + i) * call.width + call.first + column, features - column) };
                for (j, out) in out.iter_mut().enumerate() {
                    *out = sums[j] + call.bias.map_or(0.0, |b| b[column + j]);
                }
            }
        }
    }
}
