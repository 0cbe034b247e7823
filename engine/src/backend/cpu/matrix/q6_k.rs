//! Q6_K: 6-bit codes less 32, a signed byte as scale of each 16, an f16 factor of these for each 256.

use super::{
    super::isa::{LANES, Simd, math::f16_to_f32},
    PANEL,
    encoded::{EncodedRow, Encoding, Group, SCALE_NOT_FINITE, is_finite_f16},
    q4_0::{nibbles, set_nibble},
};

const COLUMNS: usize = 256;
const GROUPS: usize = COLUMNS / 16;
/// Bytes of a block in a checkpoint: low halves, upper two bits, scales, factor.
const BLOCK: usize = 128 + 64 + GROUPS + 2;
/// Within a chunk: `[feature]` factors in f16, `[group][feature]` scales, `[four columns][feature]` upper bits, `[pair][feature]` nibbles.
const SCALES: usize = 2 * PANEL;
const HIGH: usize = SCALES + GROUPS * PANEL;
const NIBBLES: usize = HIGH + COLUMNS / 4 * PANEL;
const CHUNK_BYTES: usize = NIBBLES + COLUMNS / 2 * PANEL;

pub(super) struct Q6K {
    columns: usize,
}

impl Q6K {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns }
    }
}

impl Encoding for Q6K {
    const GROUP: usize = 16;
    const CHUNK: usize = COLUMNS;

    fn columns(&self) -> usize {
        self.columns
    }

    fn panel_bytes(&self) -> usize {
        self.columns / COLUMNS * CHUNK_BYTES
    }

    fn pack(&self, row: &EncodedRow<'_>, chunk: usize, lane: usize, panel: &mut [u8]) -> Result<(), &'static str> {
        let (low, rest) = row.bytes[chunk * BLOCK..][..BLOCK].split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, factor) = rest.split_at(GROUPS);
        let to = &mut panel[chunk * CHUNK_BYTES..][..CHUNK_BYTES];
        to[2 * lane..][..2].copy_from_slice(factor);
        for (group, scale) in scales.iter().enumerate() {
            to[SCALES + group * PANEL + lane] = *scale;
        }
        for column in 0..COLUMNS {
            // Of 128 columns, four times 32 share 32 bytes of upper bits; the first two of these are the low halves of 64 bytes.
            let (half, quarter, i) = (column / 128, column / 32 % 4, column % 32);
            set_nibble(&mut to[NIBBLES..], column, lane, low[64 * half + 32 * (quarter % 2) + i] >> (4 * (quarter / 2)));
            let bits = high[32 * half + i] >> (2 * quarter) & 3;
            to[HIGH + column / 4 * PANEL + lane] |= bits << (2 * (column % 4));
        }
        if is_finite_f16([factor[0], factor[1]]) { Ok(()) } else { Err(SCALE_NOT_FINITE) }
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S> {
        // SAFETY: promised by the caller.
        unsafe {
            let (chunk, group) = (panel.add(group / GROUPS * CHUNK_BYTES), group % GROUPS);
            let factor = f16_to_f32(s, s.widen_u16(chunk.cast::<u16>().add(vector * LANES)));
            let scale = s.mul(factor, s.to_float(s.widen_i8(chunk.add(SCALES + group * PANEL + vector * LANES))));
            Group {
                scale,
                offset: s.mul(scale, s.splat(-32.0)),
                codes: chunk.add(NIBBLES + group * 8 * PANEL + vector * LANES),
                high: chunk.add(HIGH + group * 4 * PANEL + vector * LANES),
            }
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        unsafe {
            let (even, odd) = nibbles(s, group.codes.add(pair * PANEL));
            let bits = s.shr_by(s.widen_u8(group.high.add(pair / 2 * PANEL)), 4 * (pair % 2) as u32);
            let (even, odd) = (s.or(even, s.shl::<4>(s.and(bits, 3))), s.or(odd, s.shl::<2>(s.and(bits, 12))));
            (s.to_float(even), s.to_float(odd))
        }
    }
}
