//! The one matrix product kernel, used by linear layers and by both products of attention.
//!
//! Columns are lanes: a vector holds sixteen columns, a tile some rows by one or two vectors, and every element is
//! summed along the inner dimension in its order, two steps ("a pair") at a time. So a result depends on its own row
//! and column only, to the last bit, whatever the tile, the number of rows or the thread.

use super::{
    isa::{LANES, Simd, math::f16_to_f32},
    scratch::Plain,
};

/// Steps of the inner dimension that are summed from zero before they are added to the total. A power of two.
pub(super) const BLOCK: usize = 512;
/// Pairs in a block.
pub(super) const BLOCK_PAIRS: usize = BLOCK / 2;
/// Distance of rows in packed multiplicands, in pairs; not a power of two, so that rows do not compete for the same cache sets.
pub(super) const ROW_PAIRS: usize = BLOCK_PAIRS + 16;

/// Most pieces that a column may be stored in.
pub(super) const SEGMENTS: usize = 8;

/// Two consecutive steps of a left-hand row.
pub(super) trait Pair: Plain + Send + Sync {
    /// Packs a row; an odd last value is paired with zero.
    fn pack(row: &[f32], out: &mut [Self]);
}

/// Two values rounded to bf16, the first in the low half.
impl Pair for u32 {
    #[inline(always)]
    fn pack(row: &[f32], out: &mut [u32]) {
        let (pairs, rest) = row.as_chunks::<2>();
        for (out, [even, odd]) in out.iter_mut().zip(pairs) {
            *out = u32::from(bf16_bits(*even)) | u32::from(bf16_bits(*odd)) << 16;
        }
        if let [last] = rest {
            out[pairs.len()] = u32::from(bf16_bits(*last));
        }
    }
}

impl Pair for [f32; 2] {
    #[inline(always)]
    fn pack(row: &[f32], out: &mut [[f32; 2]]) {
        let (pairs, rest) = row.as_chunks::<2>();
        out[..pairs.len()].copy_from_slice(pairs);
        if let [last] = rest {
            out[pairs.len()] = [*last, 0.0];
        }
    }
}

/// How the two multiplicands are stored and multiplied.
pub(super) trait Kind: Copy + Send + Sync + 'static {
    type A: Pair;
    /// Sixteen columns of two consecutive steps.
    type B<S: Simd>: Copy;
    /// Only for instruction sets that multiply bf16 in one instruction; for others nothing is compiled.
    const NEEDS_DOT_BF16: bool = false;
    /// # Safety
    /// Sixteen columns must be readable at `p`; where the steps of a pair are stored apart, the second ones `odd` bytes after.
    unsafe fn load<S: Simd>(s: S, p: *const u8, odd: usize) -> Self::B<S>;

    fn mul_add<S: Simd>(s: S, acc: S::F, a: Self::A, b: Self::B<S>) -> S::F;
}

/// bf16 times bf16, pairs interleaved, in one instruction.
#[derive(Clone, Copy)]
pub(super) struct Bf16Dot;
/// f32 times bf16 widened exactly, pairs interleaved.
#[derive(Clone, Copy)]
pub(super) struct Bf16Wide;
/// f32 times f16 widened exactly (finite values), pairs interleaved.
#[derive(Clone, Copy)]
pub(super) struct F16Wide;
/// f32 times f32, the steps of a pair stored apart.
#[derive(Clone, Copy)]
pub(super) struct F32Wide;

/// Rounds to the nearest bf16, ties to even.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[inline(always)]
fn mul_add_f32<S: Simd>(s: S, acc: S::F, a: [f32; 2], (even, odd): (S::F, S::F)) -> S::F {
    let acc = s.fma(s.splat(a[0]), even, acc);
    s.fma(s.splat(a[1]), odd, acc)
}

impl Kind for Bf16Dot {
    type A = u32;
    type B<S: Simd> = S::I;
    const NEEDS_DOT_BF16: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8, _odd: usize) -> S::I {
        // SAFETY: promised by the caller.
        unsafe { s.load_bits(p.cast()) }
    }

    #[inline(always)]
    fn mul_add<S: Simd>(s: S, acc: S::F, a: u32, b: S::I) -> S::F {
        s.dot_bf16(acc, a, b)
    }
}

impl Kind for Bf16Wide {
    type A = [f32; 2];
    type B<S: Simd> = (S::F, S::F);

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8, _odd: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        let pairs = unsafe { s.load_bits(p.cast()) };
        (s.float(s.shl::<16>(pairs)), s.float(s.and(pairs, 0xffff_0000)))
    }

    #[inline(always)]
    fn mul_add<S: Simd>(s: S, acc: S::F, a: [f32; 2], b: (S::F, S::F)) -> S::F {
        mul_add_f32(s, acc, a, b)
    }
}

impl Kind for F16Wide {
    type A = [f32; 2];
    type B<S: Simd> = (S::F, S::F);

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8, _odd: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        let pairs = unsafe { s.load_bits(p.cast()) };
        (f16_to_f32(s, s.and(pairs, 0xffff)), f16_to_f32(s, s.shr::<16>(pairs)))
    }

    #[inline(always)]
    fn mul_add<S: Simd>(s: S, acc: S::F, a: [f32; 2], b: (S::F, S::F)) -> S::F {
        mul_add_f32(s, acc, a, b)
    }
}

impl Kind for F32Wide {
    type A = [f32; 2];
    type B<S: Simd> = (S::F, S::F);

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8, odd: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        unsafe { (s.load(p.cast()), s.load(p.add(odd).cast())) }
    }

    #[inline(always)]
    fn mul_add<S: Simd>(s: S, acc: S::F, a: [f32; 2], b: (S::F, S::F)) -> S::F {
        mul_add_f32(s, acc, a, b)
    }
}

/// Kinds that columns computed from an encoding can take the form of.
pub(super) trait Made: Kind {
    /// Bytes of sixteen columns of a pair.
    const VECTOR_BYTES: usize;

    fn make<S: Simd>(s: S, even: S::F, odd: S::F) -> Self::B<S>;

    /// Stores what [`Kind::load`] then loads.
    ///
    /// # Safety
    /// Sixteen columns must be writable at `p`, as for [`Kind::load`].
    unsafe fn store<S: Simd>(s: S, columns: Self::B<S>, p: *mut u8, odd: usize);
}

impl Made for Bf16Dot {
    const VECTOR_BYTES: usize = LANES * 4;

    #[inline(always)]
    fn make<S: Simd>(s: S, even: S::F, odd: S::F) -> S::I {
        s.bf16_pairs(even, odd)
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, columns: S::I, p: *mut u8, _odd: usize) {
        // SAFETY: promised by the caller.
        unsafe { s.store_bits(columns, p.cast()) }
    }
}

impl Made for F32Wide {
    const VECTOR_BYTES: usize = 2 * LANES * 4;

    #[inline(always)]
    fn make<S: Simd>(_: S, even: S::F, odd: S::F) -> (S::F, S::F) {
        (even, odd)
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, columns: (S::F, S::F), p: *mut u8, odd: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            s.store(columns.0, p.cast());
            s.store(columns.1, p.add(odd).cast());
        }
    }
}

/// What becomes of the sums of a tile. Row `r`, vector `g` of a tile belongs to `out[r * stride + 16 * g..]`.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// `out = sum`
    Store,
    /// `out = before + sum`; `before` has rows of `stride` values.
    AddTo { before: *const f32, stride: usize },
    /// `out = out * factors[r] + sum`
    Rescale { factors: *const f32 },
}

/// The right-hand side: `vectors` vectors of sixteen columns. Each is stored in `segments` pieces, at most [`SEGMENTS`], of `pairs` pairs
/// that are `stride` bytes apart, and the sum runs over all pieces.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub vectors: usize,
    pub segments: usize,
    pub pairs: usize,
    pub stride: usize,
    /// Bytes from one cache line to the next that [`Piece::ahead`] asks for.
    pub ahead_stride: usize,
}

/// One piece of one vector of columns.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub start: *const u8,
    /// What will be read later, to be asked for line by line while this piece is read, so that memory is never idle: with several rows
    /// the processor does not look far enough ahead by itself. Need not be readable.
    pub ahead: *const u8,
}

impl Piece {
    const NONE: Self = Self { start: std::ptr::null(), ahead: std::ptr::null() };
}

#[derive(Clone, Copy)]
pub(super) struct Out {
    pub start: *mut f32,
    pub stride: usize,
    pub then: Then,
    /// One value per column, added last; null for none.
    pub bias: *const f32,
}

impl Out {
    /// # Safety
    /// Row `row` must exist in all that `self` points to.
    #[inline(always)]
    pub(super) unsafe fn at_row(self, row: usize) -> Self {
        // SAFETY: promised by the caller.
        unsafe {
            let then = match self.then {
                Then::Store => Then::Store,
                Then::AddTo { before, stride } => Then::AddTo { before: before.add(row * stride), stride },
                Then::Rescale { factors } => Then::Rescale { factors: factors.add(row) },
            };
            Self { start: self.start.add(row * self.stride), then, ..self }
        }
    }

    /// # Safety
    /// Vector `vector` must exist in all that `self` points to.
    #[inline(always)]
    unsafe fn at_vector(self, vector: usize) -> Self {
        // SAFETY: promised by the caller.
        unsafe {
            let then = match self.then {
                Then::AddTo { before, stride } => Then::AddTo { before: before.add(vector * LANES), stride },
                then => then,
            };
            let bias = if self.bias.is_null() { self.bias } else { self.bias.add(vector * LANES) };
            Self { start: self.start.add(vector * LANES), then, bias, ..self }
        }
    }
}

/// `M` rows by `G` vectors. Row `r` of `a` begins at `a[r * ROW_PAIRS]`.
///
/// # Safety
/// All rows and columns named must be readable, and `out` writable and not otherwise in use.
#[inline(always)]
unsafe fn tile<S: Simd, K: Kind, const M: usize, const G: usize>(
    s: S,
    a: *const K::A,
    columns: Columns,
    segments: &[[Piece; G]],
    out: Out,
) {
    let mut sums = [[s.splat(0.0); G]; M];
    let mut a = a;
    let odd = columns.stride / 2;
    // SAFETY: all addresses lie within what the caller promises.
    unsafe {
        for segment in segments {
            let mut segment = *segment;
            for k in 0..columns.pairs {
                // No closure here: it would be compiled without this instruction set.
                let mut b = [K::load(s, segment[0].start, odd); G];
                for g in 1..G {
                    b[g] = K::load(s, segment[g].start, odd);
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let a = *a.add(m * ROW_PAIRS + k);
                    for g in 0..G {
                        sums[g] = K::mul_add(s, sums[g], a, b[g]);
                    }
                }
                for piece in &mut segment {
                    piece.start = piece.start.wrapping_add(columns.stride);
                    s.prefetch(piece.ahead);
                    piece.ahead = piece.ahead.wrapping_add(columns.ahead_stride);
                }
            }
            a = a.add(columns.pairs);
        }
        finish(s, &sums, out);
    }
}

/// Puts the sums of a tile where they belong.
///
/// # Safety
/// All that `out` points to must exist for the tile, and not be otherwise in use.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, const M: usize, const G: usize>(s: S, sums: &[[S::F; G]; M], out: Out) {
    for (m, sums) in sums.iter().enumerate() {
        for (g, &sum) in sums.iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe {
                let at = out.start.add(m * out.stride + g * LANES);
                let mut sum = match out.then {
                    Then::Store => sum,
                    Then::AddTo { before, stride } => s.add(s.load(before.add(m * stride + g * LANES)), sum),
                    Then::Rescale { factors } => s.fma(s.load(at), s.splat(*factors.add(m)), sum),
                };
                if !out.bias.is_null() {
                    sum = s.add(sum, s.load(out.bias.add(g * LANES)));
                }
                s.store(sum, at);
            }
        }
    }
}

/// `rows` rows by `G` vectors, in tiles of nearly equal height.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tiles<S: Simd, K: Kind, const G: usize>(s: S, a: *const K::A, rows: usize, columns: Columns, segments: &[[Piece; G]], out: Out) {
    let most = S::TILE_ROWS[G - 1];
    let tiles = rows.div_ceil(most);
    for i in 0..tiles {
        let (start, end) = (i * rows / tiles, (i + 1) * rows / tiles);
        macro_rules! tile_of {
            ($($m:literal)*) => {
                // SAFETY: promised by the caller.
                unsafe {
                    let a = a.add(start * ROW_PAIRS);
                    let out = out.at_row(start);
                    match end - start {
                        $($m if const { $m <= S::TILE_ROWS[G - 1] } => tile::<S, K, $m, G>(s, a, columns, segments, out),)*
                        rows => unreachable!("{rows} rows in a tile"),
                    }
                }
            };
        }
        tile_of!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// `rows` rows of packed multiplicands times `columns`, of which `piece(vector, segment)` tells the pieces.
///
/// # Safety
/// `rows` rows of `a`, [`ROW_PAIRS`] apart, and all pieces of the columns must be readable; `out` must have a place for every row and
/// column that is not otherwise in use.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, K: Kind>(
    s: S,
    a: *const K::A,
    rows: usize,
    columns: Columns,
    piece: impl Fn(usize, usize) -> Piece,
    out: Out,
) {
    // Two vectors at once where the registers then still hold enough rows.
    let two_fit = S::TILE_ROWS[1] >= S::TILE_ROWS[0].min(rows);
    let mut vector = 0;
    while vector < columns.vectors {
        // SAFETY: promised by the caller.
        unsafe {
            let out = out.at_vector(vector);
            if two_fit && vector + 1 < columns.vectors {
                let mut segments = [[Piece::NONE; 2]; SEGMENTS];
                for (i, segment) in segments[..columns.segments].iter_mut().enumerate() {
                    *segment = [piece(vector, i), piece(vector + 1, i)];
                }
                tiles::<S, K, 2>(s, a, rows, columns, &segments[..columns.segments], out);
                vector += 2;
            } else {
                let mut segments = [[Piece::NONE; 1]; SEGMENTS];
                for (i, segment) in segments[..columns.segments].iter_mut().enumerate() {
                    *segment = [piece(vector, i)];
                }
                tiles::<S, K, 1>(s, a, rows, columns, &segments[..columns.segments], out);
                vector += 1;
            }
        }
    }
}
