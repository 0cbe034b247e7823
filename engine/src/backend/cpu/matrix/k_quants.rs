//! Q4_K and Q5_K: codes of 4 or 5 bits, a 6-bit scale and minimum for each 32, f16 factors of these for each 256.
//!
//! The 6-bit numbers take a byte each here, which adds three percent to the checkpoint's size.

use super::{
    super::isa::{LANES, Simd, math::f16_to_f32},
    PANEL,
    encoded::{EncodedRow, Encoding, Group, SCALE_NOT_FINITE, is_finite_f16},
    q4_0::{nibbles, set_nibble},
};

const COLUMNS: usize = 256;
const GROUPS: usize = COLUMNS / 32;
/// Within a chunk: `[feature]` factors of scales and of minima in f16; `[group][scale, minimum][feature]` bytes; fifth bits
/// `[eight columns][feature]`; and `[pair][feature]` nibbles.
const MINIMA: usize = 2 * PANEL;
const SCALES: usize = 4 * PANEL;
const HIGH: usize = SCALES + GROUPS * 2 * PANEL;

/// Codes of `BITS` bits, 4 or 5.
pub(super) struct KQuant<const BITS: usize> {
    columns: usize,
}

impl<const BITS: usize> KQuant<BITS> {
    /// Bytes of a block in a checkpoint: factors, scales and minima, fifth bits, nibbles.
    const BLOCK: usize = 2 + 2 + 12 + COLUMNS / 8 * (BITS - 4) + COLUMNS / 2;
    const NIBBLES: usize = HIGH + COLUMNS / 8 * PANEL * (BITS - 4);
    const CHUNK_BYTES: usize = Self::NIBBLES + COLUMNS / 2 * PANEL;

    pub(super) fn new(columns: usize) -> Self {
        Self { columns }
    }
}

/// Scale and minimum of group `group`, six bits each in twelve bytes: the first four of both lie in the low bits of the first eight
/// bytes; the others' low halves in the last four bytes, and their upper bits above the former.
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    }
}

impl<const BITS: usize> Encoding for KQuant<BITS> {
    const GROUP: usize = 32;
    const CHUNK: usize = COLUMNS;

    fn columns(&self) -> usize {
        self.columns
    }

    fn panel_bytes(&self) -> usize {
        self.columns / COLUMNS * Self::CHUNK_BYTES
    }

    fn pack(&self, row: &EncodedRow<'_>, chunk: usize, lane: usize, panel: &mut [u8]) -> Result<(), &'static str> {
        let block = &row.bytes[chunk * Self::BLOCK..][..Self::BLOCK];
        let (factors, rest) = block.split_at(4);
        let (scales, rest) = rest.split_at(12);
        let (fifth, nibbles) = rest.split_at(COLUMNS / 8 * (BITS - 4));
        let to = &mut panel[chunk * Self::CHUNK_BYTES..][..Self::CHUNK_BYTES];
        to[2 * lane..][..2].copy_from_slice(&factors[..2]);
        to[MINIMA + 2 * lane..][..2].copy_from_slice(&factors[2..]);
        for group in 0..GROUPS {
            let (scale, minimum) = scale_and_minimum(scales, group);
            to[SCALES + group * 2 * PANEL + lane] = scale;
            to[SCALES + (group * 2 + 1) * PANEL + lane] = minimum;
        }
        for column in 0..COLUMNS {
            // Of 64 columns, the first 32 are the low halves of 32 bytes.
            let both = nibbles[column / 64 * 32 + column % 32];
            set_nibble(&mut to[Self::NIBBLES..], column, lane, both >> (4 * (column / 32 % 2)));
            if BITS == 5 {
                let bit = fifth[column % 32] >> (column / 32) & 1;
                to[HIGH + column / 8 * PANEL + lane] |= bit << (column % 8);
            }
        }
        let finite = is_finite_f16([factors[0], factors[1]]) && is_finite_f16([factors[2], factors[3]]);
        if finite { Ok(()) } else { Err(SCALE_NOT_FINITE) }
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S> {
        // SAFETY: promised by the caller.
        unsafe {
            let (chunk, group) = (panel.add(group / GROUPS * Self::CHUNK_BYTES), group % GROUPS);
            let (factors, six_bits) = (chunk.add(vector * 2 * LANES), chunk.add(SCALES + group * 2 * PANEL + vector * LANES));
            let scale = f16_to_f32(s, s.widen_u16(factors.cast()));
            let minimum = f16_to_f32(s, s.widen_u16(factors.add(MINIMA).cast()));
            Group {
                scale: s.mul(scale, s.to_float(s.widen_u8(six_bits))),
                offset: s.sub(s.splat(0.0), s.mul(minimum, s.to_float(s.widen_u8(six_bits.add(PANEL))))),
                codes: chunk.add(Self::NIBBLES + group * 16 * PANEL + vector * LANES),
                high: chunk.add(HIGH + group * 4 * PANEL * (BITS - 4) + vector * LANES),
            }
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        unsafe {
            let (even, odd) = nibbles(s, group.codes.add(pair * PANEL));
            if BITS == 4 {
                return (s.to_float(even), s.to_float(odd));
            }
            let bits = s.shr_by(s.widen_u8(group.high.add(pair / 4 * PANEL)), 2 * (pair % 4) as u32);
            let (even, odd) = (s.or(even, s.shl::<4>(s.and(bits, 1))), s.or(odd, s.shl::<3>(s.and(bits, 2))));
            (s.to_float(even), s.to_float(odd))
        }
    }
}
