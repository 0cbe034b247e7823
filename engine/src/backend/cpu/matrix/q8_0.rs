//! Q8_0: signed bytes, an f16 scale for each 32.

use super::{
    super::isa::{LANES, Simd, math::f16_to_f32},
    PANEL,
    encoded::{EncodedRow, Encoding, Group, SCALE_NOT_FINITE, is_finite_f16},
};

/// Bytes of a block in a checkpoint.
const BLOCK: usize = 2 + 32;
/// `[feature]` scales, then `[pair][vector][even, odd][feature]` codes.
const CHUNK_BYTES: usize = PANEL * BLOCK;
const CODES: usize = PANEL * 2;

pub(super) struct Q8_0 {
    columns: usize,
}

impl Q8_0 {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns }
    }
}

/// Place of column `column` of feature `lane` among the bytes of a chunk's codes.
pub(super) fn byte_place(column: usize, lane: usize) -> usize {
    column / 2 * 2 * PANEL + lane / LANES * 2 * LANES + column % 2 * LANES + lane % LANES
}

impl Encoding for Q8_0 {
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
        for (column, code) in codes.iter().enumerate() {
            to[CODES + byte_place(column, lane)] = *code;
        }
        if is_finite_f16([scale[0], scale[1]]) { Ok(()) } else { Err(SCALE_NOT_FINITE) }
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S> {
        // SAFETY: promised by the caller.
        unsafe {
            let chunk = panel.add(group * CHUNK_BYTES);
            let scale = f16_to_f32(s, s.widen_u16(chunk.cast::<u16>().add(vector * LANES)));
            let codes = chunk.add(CODES + vector * 2 * LANES);
            Group { scale, offset: s.splat(0.0), codes, high: codes }
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        unsafe {
            let codes = group.codes.add(pair * 2 * PANEL);
            (s.to_float(s.widen_i8(codes)), s.to_float(s.widen_i8(codes.add(LANES))))
        }
    }
}
