//! AWQ and GPTQ: 4-bit codes less a zero, times an f16 scale, in groups along the columns.
//!
//! Where groups are scattered (act-order), columns are sorted by group, and the rows to be multiplied are sorted likewise.

use super::{
    super::{
        isa::{LANES, Simd, math::f16_to_f32},
        linear::NO_COLUMN,
    },
    PANEL,
    encoded::{EncodedRow, Encoding, Group, SCALE_NOT_FINITE, is_finite_f16},
    q4_0::{nibbles, set_nibble},
};

/// Columns of a chunk.
const CHUNK: usize = 32;
/// A panel begins with `[group][feature]` scales and zeros; chunks of `[pair][feature]` codes follow.
const GROUP_BYTES: usize = 3 * PANEL;
const CHUNK_BYTES: usize = CHUNK / 2 * PANEL;

pub(super) struct Int4 {
    columns: usize,
    /// Chunks that share a scale.
    chunks_per_group: usize,
    /// Columns of a group in the checkpoint.
    group_size: usize,
}

impl Int4 {
    /// The layout for `cols` input features, and the input feature of each column where that is not its number.
    pub(super) fn new(cols: usize, group_size: usize, groups: Option<&[u32]>) -> (Self, Option<Box<[u32]>>) {
        let group = |column: usize| groups.map_or(column / group_size, |groups| groups[column] as usize);
        let one_after_the_other = (0..cols).all(|column| group(column) == column / group_size);
        if one_after_the_other && (group_size.is_multiple_of(CHUNK) || group_size >= cols) {
            let chunks_per_group = group_size.min(cols).div_ceil(CHUNK);
            return (Self { columns: cols.next_multiple_of(CHUNK), chunks_per_group, group_size }, None);
        }
        let mut sorted: Vec<usize> = (0..cols).collect();
        sorted.sort_by_key(|&column| group(column));
        let mut order = Vec::with_capacity(cols);
        for members in sorted.chunk_by(|&a, &b| group(a) == group(b)) {
            order.extend(members.iter().map(|&column| column as u32));
            order.resize(order.len().next_multiple_of(CHUNK), NO_COLUMN);
        }
        // Groups of equal size, a whole number of chunks, need their scale only once.
        let even = group_size.is_multiple_of(CHUNK)
            && order.iter().enumerate().all(|(i, &c)| c != NO_COLUMN && group(c as usize) == i / group_size);
        let chunks_per_group = if even { group_size / CHUNK } else { 1 };
        (Self { columns: order.len(), chunks_per_group, group_size }, Some(order.into()))
    }

    fn header_bytes(&self) -> usize {
        (self.columns / CHUNK).div_ceil(self.chunks_per_group) * GROUP_BYTES
    }
}

impl Encoding for Int4 {
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
        let codes = &mut codes[chunk * CHUNK_BYTES..][..CHUNK_BYTES];
        let source = |i: usize| row.order.map_or(chunk * CHUNK + i, |order| order[chunk * CHUNK + i] as usize);
        for i in 0..CHUNK {
            if let Some(both) = row.bytes.get(source(i) / 2) {
                set_nibble(codes, i, lane, both >> (4 * (source(i) % 2)));
            }
        }
        if !chunk.is_multiple_of(self.chunks_per_group) {
            return Ok(());
        }
        let group = match row.groups {
            Some(groups) => groups[source(0)] as usize,
            None => source(0) / self.group_size,
        };
        let scale = [row.scales[2 * group], row.scales[2 * group + 1]];
        let to = &mut header[chunk / self.chunks_per_group * GROUP_BYTES..][..GROUP_BYTES];
        to[2 * lane..][..2].copy_from_slice(&scale);
        to[2 * PANEL + lane] = row.zeros[group];
        if is_finite_f16(scale) { Ok(()) } else { Err(SCALE_NOT_FINITE) }
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(&self, s: S, panel: *const u8, group: usize, vector: usize) -> Group<S> {
        // SAFETY: promised by the caller.
        unsafe {
            let header = panel.add(group / self.chunks_per_group * GROUP_BYTES);
            let scale = f16_to_f32(s, s.widen_u16(header.cast::<u16>().add(vector * LANES)));
            let zero = s.to_float(s.widen_u8(header.add(2 * PANEL + vector * LANES)));
            let codes = panel.add(self.header_bytes() + group * CHUNK_BYTES + vector * LANES);
            Group { scale, offset: s.sub(s.splat(0.0), s.mul(scale, zero)), codes, high: codes }
        }
    }

    #[inline(always)]
    unsafe fn codes<S: Simd>(s: S, group: &Group<S>, pair: usize) -> (S::F, S::F) {
        // SAFETY: promised by the caller.
        let (even, odd) = unsafe { nibbles(s, group.codes.add(pair * PANEL)) };
        (s.to_float(even), s.to_float(odd))
    }
}
