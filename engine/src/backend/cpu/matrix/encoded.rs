//! Packed encodings: codes of a few bits with a scale and an offset for each group of columns.
//!
//! `value = code * scale + offset`, rounded once to f32, and then to bf16 where products are in bf16. A few rows are multiplied by
//! values that never leave the registers; for more rows a block of the panel is first unpacked into the first-level cache. Both
//! make the same values and sum them in the same order, so that results do not depend on the number of rows.

use std::marker::PhantomData;

use super::{
    super::{
        Cpu,
        isa::{Kernel, LANES, Level, Simd},
        linear::{self, Linear, Panels, Product},
        memory::Region,
        pool::Pool,
        product::{BLOCK_PAIRS, Bf16Dot, F32Wide, Made, Out, ROW_PAIRS, finish},
        scratch::Shared,
    },
    PANEL, Segment,
};
use crate::backend::{BackendError, MatrixView};

/// Rows up to which values stay in registers.
const FEW_ROWS: usize = 4;
/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4096;

/// How the panels of an encoding are laid out, and what they say. Vector 0 of a panel is its first sixteen features, vector 1 the others.
pub(super) trait Encoding: Send + Sync + 'static {
    /// Columns that have scale and offset in common; it divides [`Encoding::CHUNK`], and that divides a block of the product.
    const GROUP: usize;
    /// Columns that are packed at a time.
    const CHUNK: usize;

    /// Columns of a panel that is whole chunks.
    fn columns(&self) -> usize;

    fn panel_bytes(&self) -> usize;

    /// Writes chunk `chunk` of a row as feature `lane` of a panel that is zero there.
    ///
    /// # Errors
    /// What is wrong with the row: a scale that is not finite, for one.
    fn pack(&self, row: &EncodedRow<'_>, chunk: usize, lane: usize, panel: &mut [u8]) -> Result<(), &'static str>;

    /// # Safety
    /// `panel` must be readable as a whole and have the group.
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S>;

    /// The codes of the two columns of pair `pair` of a group.
    ///
    /// # Safety
    /// `group` must be of this encoding, and `pair` less than half of [`Encoding::GROUP`].
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F);
}

/// A group of columns of sixteen features.
#[derive(Clone, Copy)]
pub(super) struct Group<S: Simd> {
    pub scale: S::F,
    pub offset: S::F,
    pub codes: *const u8,
    /// Further bits of the codes, where they are kept apart.
    pub high: *const u8,
}

/// One row of a checkpoint's matrix. What an encoding does not have is empty.
pub(super) struct EncodedRow<'a> {
    pub bytes: &'a [u8],
    pub scales: &'a [u8],
    pub zeros: &'a [u8],
    pub scales_f32: &'a [f32],
    pub groups: Option<&'a [u32]>,
    pub order: Option<&'a [u32]>,
}

impl<'a> EncodedRow<'a> {
    fn new(view: &MatrixView<'a>, row: usize, order: Option<&'a [u32]>) -> Self {
        let row_of = |bytes: &'a [u8]| {
            let each = bytes.len() / view.shape()[0];
            &bytes[row * each..][..each]
        };
        let none = Self { bytes: &[], scales: &[], zeros: &[], scales_f32: &[], groups: None, order };
        match *view {
            MatrixView::Plain(view) => Self { bytes: row_of(view.bytes), ..none },
            MatrixView::Blocks { bytes, .. } => Self { bytes: row_of(bytes), ..none },
            MatrixView::Int4 { codes, scales, zeros, groups, .. } => {
                Self { bytes: row_of(codes), scales: row_of(scales), zeros: row_of(zeros), groups, ..none }
            }
            MatrixView::Fp8 { bytes, scales, scale_block: [block_rows, block_cols], shape } => {
                let each = shape[1].div_ceil(block_cols);
                Self { bytes: row_of(bytes), scales_f32: &scales[row / block_rows * each..][..each], ..none }
            }
        }
    }
}

/// Whether f16 bits are a number.
pub(super) fn is_finite_f16(bytes: [u8; 2]) -> bool {
    bytes[1] & 0x7c != 0x7c
}

pub(super) const SCALE_NOT_FINITE: &str = "a scale is infinite or not a number";

/// Some rows of a matrix in encoding `E`.
pub(super) struct Encoded<E> {
    encoding: E,
    panels: Region,
    features: usize,
    /// Pairs of columns that are summed.
    pairs: usize,
    /// The input feature of each column, or [`linear::NO_COLUMN`], where that is not its number.
    order: Option<Box<[u32]>>,
}

impl<E: Encoding> Encoded<E> {
    pub(super) fn pack(encoding: E, parts: &[MatrixView<'_>], pool: &Pool) -> Result<Self, BackendError> {
        Self::pack_ordered(encoding, None, parts, pool)
    }

    pub(super) fn pack_ordered(
        encoding: E,
        order: Option<Box<[u32]>>,
        parts: &[MatrixView<'_>],
        pool: &Pool,
    ) -> Result<Self, BackendError> {
        let features = parts.iter().map(|p| p.shape()[0]).sum::<usize>();
        let num_panels = features.div_ceil(PANEL);
        let bytes = encoding.panel_bytes();
        let panels = Region::zeroed("a weight matrix", num_panels * bytes)?;
        let rows: Vec<(usize, usize)> =
            parts.iter().enumerate().flat_map(|(part, p)| (0..p.shape()[0]).map(move |row| (part, row))).collect();
        let base = Shared::from_ptr(panels.as_shared_mut_ptr());
        let failed = parking_lot::Mutex::new(None);
        pool.split(num_panels, true, |_, range| {
            for index in range {
                // SAFETY: panels are disjoint parts of a region that nobody else sees yet.
                let panel = unsafe { base.part(index * bytes, bytes) };
                let lanes = &rows[index * PANEL..rows.len().min((index + 1) * PANEL)];
                let sources: Vec<_> = lanes.iter().map(|&(part, row)| EncodedRow::new(&parts[part], row, order.as_deref())).collect();
                for chunk in 0..encoding.columns() / E::CHUNK {
                    for (lane, row) in sources.iter().enumerate() {
                        if let Err(reason) = encoding.pack(row, chunk, lane, panel) {
                            *failed.lock() = Some(BackendError::Weight { part: lanes[lane].0, reason: reason.into() });
                            return;
                        }
                    }
                }
            }
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        let pairs = order.as_ref().map_or(parts[0].shape()[1], |order| order.len()).div_ceil(2);
        Ok(Self { encoding, panels, features, pairs, order })
    }

    fn panel(&self, index: usize) -> *const u8 {
        assert!(index * PANEL < self.features, "panel {index} of {} features", self.features);
        self.panels.as_ptr().wrapping_add(index * self.encoding.panel_bytes())
    }

    /// Where about the values of pair `pair` of a panel lie, to be asked for.
    #[inline(always)]
    fn place(&self, panel: *const u8, pair: usize) -> *const u8 {
        panel.wrapping_add(pair * (2 * self.encoding.panel_bytes() / self.encoding.columns()))
    }

    /// `M` rows times the two vectors of a panel, over the pairs of a block.
    ///
    /// # Safety
    /// Panel, block and rows must exist, as must what `out` points to, which nobody else may use.
    #[inline(always)]
    unsafe fn tile<S: Simd, K: Made, const M: usize>(&self, s: S, at: Block<K::A>, out: Out) {
        let mut sums = [[s.splat(0.0); 2]; M];
        let mut done = 0;
        // SAFETY: groups lie within the panel, and rows are as long as the block.
        unsafe {
            while done < at.pairs {
                let group = (at.first_pair + done) / (E::GROUP / 2);
                let groups = [self.encoding.group(s, at.panel, group, 0), self.encoding.group(s, at.panel, group, 1)];
                let pairs = (E::GROUP / 2).min(at.pairs - done);
                for pair in 0..pairs {
                    s.prefetch(self.place(at.panel, at.first_pair + done + pair).wrapping_add(AHEAD));
                    let b = [value::<S, K, E>(s, &groups[0], pair), value::<S, K, E>(s, &groups[1], pair)];
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let a = *at.a.add(m * ROW_PAIRS + done + pair);
                        *sums = [K::mul_add(s, sums[0], a, b[0]), K::mul_add(s, sums[1], a, b[1])];
                    }
                }
                done += pairs;
            }
            finish(s, &sums, out);
        }
    }

    /// All values of a block of a panel, `[pair][vector]`.
    ///
    /// # Safety
    /// Panel and block must exist, and `to` have room for [`BLOCK_PAIRS`] times two vectors.
    #[inline(always)]
    unsafe fn unpack<S: Simd, K: Made>(&self, s: S, at: Block<K::A>, to: *mut u8) {
        let mut done = 0;
        // SAFETY: groups lie within the panel, and what is written within `to`.
        unsafe {
            while done < at.pairs {
                let group = (at.first_pair + done) / (E::GROUP / 2);
                let groups = [self.encoding.group(s, at.panel, group, 0), self.encoding.group(s, at.panel, group, 1)];
                let pairs = (E::GROUP / 2).min(at.pairs - done);
                for pair in 0..pairs {
                    let to = to.add((done + pair) * 2 * K::VECTOR_BYTES);
                    s.prefetch(self.place(at.panel, at.first_pair + done + pair).wrapping_add(AHEAD));
                    K::store(s, value::<S, K, E>(s, &groups[0], pair), to, K::VECTOR_BYTES);
                    K::store(s, value::<S, K, E>(s, &groups[1], pair), to.add(LANES * 4), K::VECTOR_BYTES);
                }
                done += pairs;
            }
        }
    }
}

/// A block of a panel, and rows packed for it.
#[derive(Clone, Copy)]
struct Block<A> {
    panel: *const u8,
    first_pair: usize,
    pairs: usize,
    a: *const A,
}

/// Sixteen features of two columns.
///
/// # Safety
/// As [`Encoding::codes`].
#[inline(always)]
unsafe fn value<S: Simd, K: Made, E: Encoding>(s: S, group: &Group<S>, pair: usize) -> K::B<S> {
    // SAFETY: promised by the caller.
    let (even, odd) = unsafe { E::codes(s, group, pair) };
    K::make(s, s.fma(even, group.scale, group.offset), s.fma(odd, group.scale, group.offset))
}

impl<E: Encoding, K: Made> Panels<K> for Encoded<E> {
    const SCRATCH: usize = BLOCK_PAIRS * 2 * K::VECTOR_BYTES;

    fn features(&self) -> usize {
        self.features
    }

    fn pairs(&self) -> usize {
        self.pairs
    }

    fn order(&self) -> Option<&[u32]> {
        self.order.as_deref()
    }

    unsafe fn product(&self, level: Level, panel: usize, block: usize, a: *const K::A, rows: usize, out: Out, scratch: &mut [u8]) {
        let first_pair = block * BLOCK_PAIRS;
        let at = Block { panel: self.panel(panel), first_pair, pairs: BLOCK_PAIRS.min(self.pairs - first_pair), a };
        if rows <= FEW_ROWS {
            return level.run(Few::<K, E> { of: self, at, rows, out });
        }
        let start = scratch.as_mut_ptr();
        level.run(Unpack::<K, E> { of: self, at, to: start });
        // SAFETY: promised by the caller; all pairs of the block have just been unpacked.
        unsafe { Product::<K> { a, rows, start, pairs: at.pairs, stride: 2 * K::VECTOR_BYTES, ahead: 0, out }.run(level) }
    }
}

/// The product of up to [`FEW_ROWS`] rows with a block, in [`Panels::product`] only.
struct Few<'a, K: Made, E> {
    of: &'a Encoded<E>,
    at: Block<K::A>,
    rows: usize,
    out: Out,
}

impl<K: Made, E: Encoding> Kernel for Few<'_, K, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if const { K::NEEDS_DOT_BF16 && !S::DOT_BF16 } {
            unreachable!("a product that this instruction set does not have");
        }
        let mut row = 0;
        while row < self.rows {
            // SAFETY: promised by the caller of `Panels::product`.
            unsafe {
                let (at, out) = (Block { a: self.at.a.add(row * ROW_PAIRS), ..self.at }, self.out.at_row(row));
                // Four rows by two vectors do not fit the registers of every instruction set.
                row += match self.rows - row {
                    4.. if const { S::TILE_ROWS[1] >= 4 } => {
                        self.of.tile::<S, K, 4>(s, at, out);
                        4
                    }
                    2.. => {
                        self.of.tile::<S, K, 2>(s, at, out);
                        2
                    }
                    _ => {
                        self.of.tile::<S, K, 1>(s, at, out);
                        1
                    }
                };
            }
        }
    }
}

/// [`Encoded::unpack`], in [`Panels::product`] only.
struct Unpack<'a, K: Made, E> {
    of: &'a Encoded<E>,
    at: Block<K::A>,
    to: *mut u8,
}

impl<K: Made, E: Encoding> Kernel for Unpack<'_, K, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if const { K::NEEDS_DOT_BF16 && !S::DOT_BF16 } {
            unreachable!("a product that this instruction set does not have");
        }
        // SAFETY: panel and block exist, and scratch has the size that was asked for.
        unsafe { self.of.unpack::<S, K>(s, self.at, self.to) }
    }
}

impl<E: Encoding> Segment for Encoded<E> {
    fn features(&self) -> usize {
        self.features
    }

    fn bytes(&self) -> usize {
        self.panels.len()
    }

    fn multiply(&self, cpu: &Cpu, call: Linear<'_>) {
        if cpu.dot_bf16 {
            linear::multiply::<Bf16Dot, Self>(cpu, self, call);
        } else {
            linear::multiply::<F32Wide, Self>(cpu, self, call);
        }
    }

    fn copy_row(&self, cpu: &Cpu, index: usize, out: &mut [f32]) {
        cpu.level.run(CopyRow { of: self, panel: index / PANEL, lane: index % PANEL, out, encoding: PhantomData });
    }
}

/// Decodes a vector of features and keeps one of them.
struct CopyRow<'a, E> {
    of: &'a Encoded<E>,
    panel: usize,
    lane: usize,
    out: &'a mut [f32],
    encoding: PhantomData<E>,
}

impl<E: Encoding> Kernel for CopyRow<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (panel, vector, lane) = (self.of.panel(self.panel), self.lane / LANES, self.lane % LANES);
        let order = self.of.order.as_deref();
        for pair in 0..self.of.pairs {
            // SAFETY: the panel has all pairs.
            let (even, odd) = unsafe {
                let group = self.of.encoding.group(s, panel, pair / (E::GROUP / 2), vector);
                value::<S, F32Wide, E>(s, &group, pair % (E::GROUP / 2))
            };
            for (column, values) in [(2 * pair, even), (2 * pair + 1, odd)] {
                let column = order.map_or(column, |order| order[column] as usize);
                if let Some(out) = self.out.get_mut(column) {
                    *out = s.to_array(values)[lane];
                }
            }
        }
    }
}
