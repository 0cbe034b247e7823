//! A checkpoint's matrix as the device has it: which format, which columns, and the bytes of each row in each plane. Nothing here knows of a
//! device, so that rows can be packed by any thread into any memory.

use std::ops::Range;

use half::{bf16, f16};
use tokenflow_gpu::Element;

use super::{
    decode,
    format::{Format, Layout, PLANES},
};
use crate::backend::{BackendError, BlockFormat, DType, MatrixView, TensorView};

/// A column of the planes that no column of the matrix is in; picking it makes zero.
pub(super) const NO_COLUMN: u32 = u32::MAX;
/// Columns that kernels read of a 4-bit matrix at a time.
const CHUNK: usize = 32;
const SCALE_NOT_FINITE: &str = "a scale is infinite or not a number";

/// Parts stacked by rows, and how they are written.
pub(super) struct Packing<'a> {
    pub(super) layout: Layout,
    /// The input feature of each column, or [`NO_COLUMN`], where that is not its number.
    pub(super) order: Option<Box<[u32]>>,
    /// FP8's scales, `[features / scale_features][columns / group]`.
    pub(super) scales: Vec<f32>,
    /// Why values are kept in a plain type that were not in the checkpoint.
    pub(super) widened: Option<String>,
    parts: &'a [MatrixView<'a>],
    /// The first row of each part.
    first_rows: Vec<usize>,
}

impl<'a> Packing<'a> {
    /// All values become `plain`.
    ///
    /// # Errors
    /// When the parts differ in columns, or are not what their shape says.
    pub(super) fn new(parts: &'a [MatrixView<'a>], plain: Element) -> Result<Self, BackendError> {
        let first = parts.first().ok_or_else(|| BackendError::Device("a matrix of no parts was asked for".into()))?;
        let [_, columns] = first.shape();
        for (part, view) in parts.iter().enumerate() {
            if view.shape()[1] != columns {
                return Err(BackendError::Columns { expected: columns, found: view.shape()[1] });
            }
            view.check().map_err(|reason| BackendError::Weight { part, reason })?;
        }
        let first_rows = parts.iter().scan(0, |next, part| Some(std::mem::replace(next, *next + part.shape()[0]))).collect();
        let features = parts.iter().map(|part| part.shape()[0]).sum();
        let format = if columns.is_multiple_of(8) { Format::Plain(plain) } else { Format::Odd(plain) };
        let layout = Layout { format, features, columns, group: 0, scale_features: 0, has_zeros: false };
        Ok(Self { layout, order: None, scales: Vec::new(), widened: None, parts, first_rows })
    }

    /// The same in the checkpoint's own encoding, where kernels can read that.
    pub(super) fn in_own_encoding(mut self) -> Self {
        if let Err(reason) = self.encode() {
            self.widened = Some(reason);
        }
        self
    }

    /// Takes the checkpoint's encoding over, or says why kernels cannot read it.
    fn encode(&mut self) -> Result<(), String> {
        let (first, mut layout, mut order) = (self.parts[0], self.layout, None);
        (layout.format, layout.group) = match first {
            MatrixView::Plain(_) => return Ok(()),
            MatrixView::Blocks { format, .. } => match format {
                BlockFormat::Q8_0 => (Format::Q8_0, 0),
                // (code - 8) * scale: 4-bit groups of 32 without zeros.
                BlockFormat::Q4_0 => (Format::Int4, CHUNK),
                BlockFormat::Q4K => (Format::Q4K, 0),
                BlockFormat::Q5K => (Format::Q5K, 0),
                BlockFormat::Q6K => (Format::Q6K, 0),
            },
            MatrixView::Int4 { group_size, groups, .. } => {
                let group;
                (layout.columns, group, order) = int4_columns(layout.columns, group_size, groups);
                layout.has_zeros = true;
                (Format::Int4, group)
            }
            MatrixView::Fp8 { scale_block: [_, group], .. } => (Format::Fp8, group.min(layout.columns)),
        };
        let (unit, columns, group) = (layout.format.column_multiple(), layout.columns, layout.group);
        if !columns.is_multiple_of(unit) {
            return Err(format!("kernels read {} of a multiple of {unit} columns, not {columns}", first.encoding()));
        }
        if layout.format == Format::Fp8 && group < columns && !group.is_multiple_of(unit) {
            return Err(format!("kernels read scales of a multiple of {unit} columns, not {group}"));
        }
        (self.layout, self.order) = (layout, order);
        if layout.format == Format::Fp8 {
            self.stack_scales();
        }
        Ok(())
    }

    /// One table of all parts' scales: for as many rows each as all parts' boundaries allow.
    fn stack_scales(&mut self) {
        let blocks = |part: &MatrixView<'_>| match part {
            MatrixView::Fp8 { scale_block: [rows, _], .. } => (*rows).min(part.shape()[0].max(1)),
            _ => 1,
        };
        let last = self.parts.len() - 1;
        let starts_and_blocks = self.parts[..last].iter().map(|part| part.shape()[0]).chain(self.parts.iter().map(blocks));
        let each = starts_and_blocks.fold(0, greatest_common_divisor).max(1);
        self.layout.scale_features = each;
        for part in self.parts {
            if let MatrixView::Fp8 { shape: [rows, columns], scales, scale_block: [block_rows, block_cols], .. } = part {
                let per_row = columns.div_ceil(*block_cols);
                for row in (0..*rows).step_by(each) {
                    self.scales.extend(&scales[row / block_rows * per_row..][..per_row]);
                }
            }
        }
    }

    /// Bytes of the checkpoint that it is made of.
    pub(super) fn stored_bytes(&self) -> usize {
        let of = |part: &MatrixView<'_>| match part {
            MatrixView::Plain(TensorView { bytes, .. }) | MatrixView::Blocks { bytes, .. } => bytes.len(),
            MatrixView::Int4 { codes, scales, zeros, .. } => codes.len() + scales.len() + zeros.len(),
            MatrixView::Fp8 { bytes, scales, .. } => bytes.len() + size_of_val(*scales),
        };
        self.parts.iter().map(of).sum()
    }

    /// Writes rows `rows` of each plane; each has [`Layout::row_bytes`] a row.
    ///
    /// # Errors
    /// When a value or a scale is not a number that the device can have.
    pub(super) fn write(&self, rows: Range<usize>, planes: [&mut [u8]; PLANES]) -> Result<(), BackendError> {
        let each = self.layout.row_bytes();
        let mut planes = planes;
        for row in rows {
            let part = self.first_rows.partition_point(|first| *first <= row) - 1;
            let mut plane = 0;
            let own = planes.each_mut().map(|bytes| {
                plane += 1;
                split(bytes, each[plane - 1])
            });
            self.write_row(&self.parts[part], row - self.first_rows[part], own).map_err(|reason| BackendError::Weight { part, reason })?;
        }
        Ok(())
    }

    fn write_row(&self, view: &MatrixView<'_>, row: usize, planes: [&mut [u8]; PLANES]) -> Result<(), String> {
        let [codes, scales, offsets, high] = planes;
        let [_, cols] = view.shape();
        match (self.layout.format, *view) {
            (Format::Plain(element) | Format::Odd(element), MatrixView::Plain(view)) if element_of(view.dtype) == element => {
                codes.copy_from_slice(&view.bytes[row * codes.len()..][..codes.len()]);
                Ok(())
            }
            (Format::Plain(element) | Format::Odd(element), _) => {
                let mut values = vec![0.0; cols];
                decode::row(view, row, &mut values);
                narrow(&values, element, codes)
                    .map_err(|value| format!("the {} weight {value} is not finite as {element:?}", view.encoding()))
            }
            (_, MatrixView::Blocks { format, bytes, .. }) => {
                let block_bytes = format.bytes_per_block();
                let each = cols / format.elements_per_block() * block_bytes;
                let blocks = bytes[row * each..][..each].chunks_exact(block_bytes);
                blocks.enumerate().try_for_each(|(i, block)| write_block(format, block, i, [codes, scales, offsets, high]))
            }
            (_, MatrixView::Int4 { group_size, codes: from, scales: from_scales, zeros, groups, .. }) => {
                let per_row = cols.div_ceil(group_size);
                let from = Int4Row {
                    codes: &from[row * cols / 2..][..cols / 2],
                    scales: &from_scales[row * per_row * 2..][..per_row * 2],
                    zeros: &zeros[row * per_row..][..per_row],
                    group_size,
                    groups,
                };
                self.write_int4(&from, codes, scales, offsets)
            }
            (_, MatrixView::Fp8 { bytes, .. }) => {
                codes.copy_from_slice(&bytes[row * cols..][..cols]);
                Ok(())
            }
            (format, MatrixView::Plain(_)) => Err(format!("plain values cannot become {}", format.name())),
        }
    }

    fn write_int4(&self, from: &Int4Row<'_>, codes: &mut [u8], scales: &mut [u8], zeros: &mut [u8]) -> Result<(), String> {
        let source = |column: usize| self.order.as_ref().map_or(column, |order| order[column] as usize);
        match &self.order {
            None => codes.copy_from_slice(from.codes),
            Some(_) => {
                let code = |column: usize| from.codes.get(source(column) / 2).map_or(0, |both| both >> (4 * (source(column) % 2)) & 15);
                codes.iter_mut().enumerate().for_each(|(i, both)| *both = code(2 * i) | code(2 * i + 1) << 4);
            }
        }
        for (i, zero) in zeros.iter_mut().enumerate() {
            // The first column of a group is never one that nothing is in.
            let column = source(i * self.layout.group);
            let group = from.groups.map_or(column / from.group_size, |groups| groups[column] as usize);
            let scale = [from.scales[2 * group], from.scales[2 * group + 1]];
            finite(scale)?;
            scales[2 * i..][..2].copy_from_slice(&scale);
            *zero = from.zeros[group];
        }
        Ok(())
    }
}

struct Int4Row<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
    zeros: &'a [u8],
    group_size: usize,
    groups: Option<&'a [u32]>,
}

/// Block `index` of a row.
fn write_block(format: BlockFormat, block: &[u8], index: usize, [codes, scales, offsets, high]: [&mut [u8]; PLANES]) -> Result<(), String> {
    match format {
        BlockFormat::Q8_0 => {
            finite([block[0], block[1]])?;
            scales[2 * index..][..2].copy_from_slice(&block[..2]);
            codes[32 * index..][..32].copy_from_slice(&block[2..]);
        }
        BlockFormat::Q4_0 => {
            finite([block[0], block[1]])?;
            scales[2 * index..][..2].copy_from_slice(&block[..2]);
            // The first 16 columns are the low halves.
            interleave(&block[2..], &mut codes[16 * index..][..16]);
        }
        BlockFormat::Q4K | BlockFormat::Q5K => {
            finite([block[0], block[1]])?;
            finite([block[2], block[3]])?;
            scales[4 * index..][..4].copy_from_slice(&block[..4]);
            for (group, to) in offsets[16 * index..][..16].as_chunks_mut().0.iter_mut().enumerate() {
                *to = decode::scale_and_minimum(&block[4..16], group);
            }
            let (fifth, nibbles) = block[16..].split_at(block.len() - 16 - 128);
            // Of 64 columns, the first 32 are the low halves of 32 bytes.
            for (halves, to) in nibbles.chunks_exact(32).zip(codes[128 * index..][..128].chunks_exact_mut(32)) {
                interleave(halves, to);
            }
            if format == BlockFormat::Q5K {
                // Byte `i` has the fifth bits of column `i` of every 32.
                for (byte, to) in high[32 * index..][..32].iter_mut().enumerate() {
                    let (group, first) = (byte / 4, byte % 4 * 8);
                    *to = (0..8).fold(0, |bits, i| bits | (fifth[first + i] >> group & 1) << i);
                }
            }
        }
        BlockFormat::Q6K => {
            finite([block[208], block[209]])?;
            scales[2 * index..][..2].copy_from_slice(&block[208..]);
            offsets[16 * index..][..16].copy_from_slice(&block[192..208]);
            let (low, upper) = (&block[..128], &block[128..192]);
            // Of 128 columns, four times 32 share 32 bytes of upper bits; the first two of these are the low halves of 64 bytes.
            for (halves, to) in low.chunks_exact(64).zip(codes[128 * index..][..128].chunks_exact_mut(64)) {
                interleave(halves, to);
            }
            for (byte, to) in high[64 * index..][..64].iter_mut().enumerate() {
                let (half, quarter, first) = (byte / 32, byte / 8 % 4, byte % 8 * 4);
                *to = (0..4).fold(0, |bits, i| bits | (upper[32 * half + first + i] >> (2 * quarter) & 3) << (2 * i));
            }
        }
    }
    Ok(())
}

/// Puts neighbours into one byte: of `n` bytes, the low halves are the first `n` columns, the high ones the others.
fn interleave(halves: &[u8], to: &mut [u8]) {
    let half = halves.len() / 2;
    for i in 0..half {
        to[i] = halves[2 * i] & 15 | halves[2 * i + 1] << 4;
        to[i + half] = halves[2 * i] >> 4 | halves[2 * i + 1] & 0xf0;
    }
}

/// The columns of a 4-bit matrix on the device, how many share a scale, and the input feature of each where that is not its number: columns
/// of scattered groups are sorted by group, and groups filled up to whole chunks.
fn int4_columns(cols: usize, group_size: usize, groups: Option<&[u32]>) -> (usize, usize, Option<Box<[u32]>>) {
    let group = |column: usize| groups.map_or(column / group_size, |groups| groups[column] as usize);
    let follow_each_other = (0..cols).all(|column| group(column) == column / group_size);
    if follow_each_other && cols.is_multiple_of(CHUNK) && (group_size.is_multiple_of(CHUNK) || group_size >= cols) {
        return (cols, group_size.min(cols), None);
    }
    let mut sorted: Vec<usize> = (0..cols).collect();
    sorted.sort_by_key(|&column| group(column));
    let mut order = Vec::with_capacity(cols);
    for members in sorted.chunk_by(|&a, &b| group(a) == group(b)) {
        order.extend(members.iter().map(|&column| column as u32));
        order.resize(order.len().next_multiple_of(CHUNK), NO_COLUMN);
    }
    // Groups of equal size, a whole number of chunks, need their scale only once.
    let is_even = group_size.is_multiple_of(CHUNK)
        && order
            .chunks(group_size)
            .all(|columns| columns.iter().all(|&c| c != NO_COLUMN && group(c as usize) == group(columns[0] as usize)));
    (order.len(), if is_even { group_size } else { CHUNK }, Some(order.into()))
}

/// Whether both can be parts of one matrix in an encoding.
pub(super) fn are_alike(a: &MatrixView<'_>, b: &MatrixView<'_>) -> bool {
    match (a, b) {
        (MatrixView::Plain(_), MatrixView::Plain(_)) => true,
        (MatrixView::Blocks { format: a, .. }, MatrixView::Blocks { format: b, .. }) => a == b,
        (MatrixView::Int4 { group_size: a, groups: g, .. }, MatrixView::Int4 { group_size: b, groups: h, .. }) => a == b && g == h,
        (MatrixView::Fp8 { scale_block: [_, a], shape, .. }, MatrixView::Fp8 { scale_block: [_, b], .. }) => {
            (*a).min(shape[1]) == (*b).min(shape[1])
        }
        _ => false,
    }
}

fn element_of(dtype: DType) -> Element {
    match dtype {
        DType::F32 => Element::F32,
        DType::F16 => Element::F16,
        DType::BF16 => Element::BF16,
    }
}

/// Writes values as `element`, rounded to the nearest, ties to even; or says which is out of its range.
fn narrow(values: &[f32], element: Element, to: &mut [u8]) -> Result<(), f32> {
    let mut worst = None;
    match element {
        Element::F32 => values.iter().zip(to.as_chunks_mut().0).for_each(|(value, to)| *to = value.to_le_bytes()),
        Element::F16 => values.iter().zip(to.as_chunks_mut().0).for_each(|(value, to)| {
            let narrow = f16::from_f32(*value);
            worst = worst.or((!narrow.is_finite()).then_some(*value));
            *to = narrow.to_le_bytes();
        }),
        Element::BF16 => values.iter().zip(to.as_chunks_mut().0).for_each(|(value, to)| {
            let narrow = bf16::from_f32(*value);
            worst = worst.or((!narrow.is_finite()).then_some(*value));
            *to = narrow.to_le_bytes();
        }),
    }
    worst.map_or(Ok(()), Err)
}

fn finite(half: [u8; 2]) -> Result<(), String> {
    if half[1] & 0x7c == 0x7c { Err(SCALE_NOT_FINITE.to_owned()) } else { Ok(()) }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Takes the first `len` bytes off.
fn split<'b>(bytes: &mut &'b mut [u8], len: usize) -> &'b mut [u8] {
    let (head, tail) = std::mem::take(bytes).split_at_mut(len);
    *bytes = tail;
    head
}
