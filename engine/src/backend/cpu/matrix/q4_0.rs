//! Q4_0: 4-bit codes less 8, an f16 scale for each 32.

use super::{
    super::isa::{LANES, Simd, math::f16_to_f32},
    PANEL,
    encoded::{EncodedRow, Encoding, Group, SCALE_NOT_FINITE, is_finite_f16},
};

/// Bytes of a block in a checkpoint.
const BLOCK: usize = 2 + 16;
/// `[feature]` scales, then `[pair][feature]` codes.
const CHUNK_BYTES: usize = PANEL * BLOCK;
const CODES: usize = PANEL * 2;

pub(super) struct Q4_0 {
    columns: usize,
}

impl Q4_0 {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns }
    }
}

/// Sets the code of column `column` of feature `lane` among nibbles that are zero: `[pair][feature]`, the even column in the low half.
pub(super) fn set_nibble(codes: &mut [u8], column: usize, lane: usize, code: u8) {
    codes[column / 2 * PANEL + lane] |= (code & 15) << (4 * (column % 2));
}

/// Two columns of nibbles as [`set_nibble`] puts them, as integers.
///
/// # Safety
/// Sixteen bytes must be readable.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(s: S, codes: *const u8) -> (S::I, S::I) {
    // SAFETY: promised by the caller.
    let both = unsafe { s.widen_u8(codes) };
    (s.and(both, 15), s.shr::<4>(both))
}

impl Encoding for Q4_0 {
    const GROUP: usize = 32;
    const CHUNK: usize = 32;

    fn columns(&self) -> usize {
        self.columns
    }

    fn panel_bytes(&self) -> usize {
        self.columns / Self::CHUNK * CHUNK_BYTES
    }

    fn pack(&self, row: &EncodedRow<'_>, chunk: usize, lane: usize, panel: &mut [u8]) -> Result<(), &'static str> {
        let (scale, codes) = row.bytes[chunk * BLOCK..][..BLOCK].split_at(2);
        let to = &mut panel[chunk * CHUNK_BYTES..][..CHUNK_BYTES];
        to[2 * lane..][..2].copy_from_slice(scale);
        for (i, both) in codes.iter().enumerate() {
            set_nibble(&mut to[CODES..], i, lane, both & 15);
            set_nibble(&mut to[CODES..], 16 + i, lane, both >> 4);
        }
        if is_finite_f16([scale[0], scale[1]]) { Ok(()) } else { Err(SCALE_NOT_FINITE) }
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S> {
        // SAFETY: promised by the caller.
        unsafe {
            let chunk = panel.add(group * CHUNK_BYTES);
            let scale = f16_to_f32(s, s.widen_u16(chunk.cast::<u16>().add(vector * LANES)));
            let codes = chunk.add(CODES + vector * LANES);
            Group { scale, offset: s.mul(scale, s.splat(-8.0)), codes, high: codes }
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        let (even, odd) = unsafe { nibbles(s, group.codes.add(pair * PANEL)) };
        (s.to_float(even), s.to_float(odd))
    }
}
