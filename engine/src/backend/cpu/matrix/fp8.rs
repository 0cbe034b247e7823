//! FP8: e4m3 bytes with an f32 scale for each block of rows and columns.

use super::{
    super::isa::{
        LANES, Simd,
        math::{E4M3_UNIT, e4m3_to_f32_small},
    },
    PANEL,
    encoded::{EncodedRow, Encoding, Group},
    q8_0::byte_place,
};

/// Columns of a chunk.
const CHUNK: usize = 32;
/// A panel begins with `[group][feature]` scales; chunks of codes as in Q8_0 follow.
const GROUP_BYTES: usize = 4 * PANEL;
const CHUNK_BYTES: usize = CHUNK * PANEL;
/// What a scale may be: it is kept times [`E4M3_UNIT`], as codes are decoded to their value divided by that.
const MAX_SCALE: f32 = 255.0;

pub(super) struct Fp8 {
    columns: usize,
    /// Chunks that share a scale.
    chunks_per_group: usize,
}

impl Fp8 {
    pub(super) fn new(cols: usize, group_cols: usize) -> Result<Self, String> {
        if group_cols < cols && !group_cols.is_multiple_of(CHUNK) {
            return Err(format!("e4m3 scales of blocks of {group_cols} columns are not supported, only of multiples of {CHUNK}"));
        }
        Ok(Self { columns: cols.next_multiple_of(CHUNK), chunks_per_group: group_cols.min(cols).div_ceil(CHUNK).max(1) })
    }

    fn header_bytes(&self) -> usize {
        (self.columns / CHUNK).div_ceil(self.chunks_per_group) * GROUP_BYTES
    }
}

impl Encoding for Fp8 {
    const GROUP: usize = CHUNK;
    const CHUNK: usize = CHUNK;

    fn columns(&self) -> usize {
        self.columns
    }

    fn panel_bytes(&self) -> usize {
        self.header_bytes() + self.columns / CHUNK * CHUNK_BYTES
    }

    fn pack(&self, row: &EncodedRow<'_>, chunk: usize, lane: usize, panel: &mut [u8]) -> Result<(), &'static str> {
        let (header, codes) = panel.split_at_mut(self.header_bytes());
        let to = &mut codes[chunk * CHUNK_BYTES..][..CHUNK_BYTES];
        for (column, code) in row.bytes[chunk * CHUNK..].iter().take(CHUNK).enumerate() {
            to[byte_place(column, lane)] = *code;
            if code & 0x7f == 0x7f {
                return Err("an e4m3 weight is not a number");
            }
        }
        let group = chunk / self.chunks_per_group;
        let scale = row.scales_f32[group];
        header[group * GROUP_BYTES + 4 * lane..][..4].copy_from_slice(&(scale * E4M3_UNIT).to_le_bytes());
        if scale.abs() <= MAX_SCALE { Ok(()) } else { Err("an e4m3 scale is not a number up to 255") }
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S> {
        // SAFETY: promised by the caller.
        unsafe {
            let scale = s.load(panel.add(group / self.chunks_per_group * GROUP_BYTES + vector * 4 * LANES).cast());
            let codes = panel.add(self.header_bytes() + group * CHUNK_BYTES + vector * 2 * LANES);
            Group { scale, offset: s.splat(0.0), codes, high: codes }
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        unsafe {
            let codes = group.codes.add(pair * 2 * PANEL);
            (e4m3_to_f32_small(s, s.widen_u8(codes)), e4m3_to_f32_small(s, s.widen_u8(codes.add(LANES))))
        }
    }
}
