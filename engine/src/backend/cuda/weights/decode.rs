//! The values of one row of a checkpoint's matrix, in any encoding: for what no kernel reads as it is.
//! Layouts are those of ggml-common.h and of [`MatrixView`].

use half::f16;

use crate::backend::{BlockFormat, MatrixView, TensorView};

/// Writes the values of row `row` to `out`, which has as many elements as the matrix has columns.
pub(super) fn row(view: &MatrixView<'_>, row: usize, out: &mut [f32]) {
    let [_, cols] = view.shape();
    match *view {
        MatrixView::Plain(TensorView { dtype, bytes, .. }) => {
            let each = cols * dtype.size();
            let one = TensorView { dtype, shape: [1, cols], bytes: &bytes[row * each..][..each] };
            out.copy_from_slice(&one.to_f32());
        }
        MatrixView::Blocks { format, bytes, .. } => {
            let each = cols / format.elements_per_block() * format.bytes_per_block();
            let blocks = bytes[row * each..][..each].chunks_exact(format.bytes_per_block());
            for (block, out) in blocks.zip(out.chunks_exact_mut(format.elements_per_block())) {
                match format {
                    BlockFormat::Q8_0 => q8_0(block, out),
                    BlockFormat::Q4_0 => q4_0(block, out),
                    BlockFormat::Q4K => k_quant::<4>(block, out),
                    BlockFormat::Q5K => k_quant::<5>(block, out),
                    BlockFormat::Q6K => q6_k(block, out),
                }
            }
        }
        MatrixView::Int4 { group_size, codes, scales, zeros, groups, .. } => {
            let per_row = cols.div_ceil(group_size);
            let (codes, first) = (&codes[row * cols / 2..][..cols / 2], row * per_row);
            for (column, out) in out.iter_mut().enumerate() {
                let group = first + groups.map_or(column / group_size, |groups| groups[column] as usize);
                let code = codes[column / 2] >> (4 * (column % 2)) & 15;
                *out = (f32::from(code) - f32::from(zeros[group])) * half_at(scales, group);
            }
        }
        MatrixView::Fp8 { bytes, scales, scale_block: [block_rows, block_cols], .. } => {
            let scales = &scales[row / block_rows * cols.div_ceil(block_cols)..];
            for (column, (out, byte)) in out.iter_mut().zip(&bytes[row * cols..][..cols]).enumerate() {
                *out = e4m3(*byte) * scales[column / block_cols];
            }
        }
    }
}

fn half_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (out, code) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*code as i8) * scale;
    }
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (i, both) in block[2..].iter().enumerate() {
        out[i] = (f32::from(both & 15) - 8.0) * scale;
        out[i + 16] = (f32::from(both >> 4) - 8.0) * scale;
    }
}

/// Q4_K and Q5_K: factors of scale and minimum, six-bit numbers of each 32 columns, fifth bits, nibbles.
fn k_quant<const BITS: usize>(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 1));
    let (six_bits, rest) = block[4..].split_at(12);
    let (fifth, nibbles) = rest.split_at(32 * (BITS - 4));
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let [six_scale, six_minimum] = scale_and_minimum(six_bits, group);
        let (scale, minimum) = (scale * f32::from(six_scale), minimum * f32::from(six_minimum));
        for (i, out) in out.iter_mut().enumerate() {
            let low = nibbles[group / 2 * 32 + i] >> (4 * (group % 2)) & 15;
            let high = fifth.get(i).map_or(0, |bits| bits >> group & 1);
            *out = f32::from(low | high << 4) * scale - minimum;
        }
    }
}

/// Scale and minimum of group `group`, six bits each in twelve bytes: the first four of both lie in the low bits of the first eight bytes; the
/// others' low halves in the last four bytes, and their upper bits above the former.
pub(super) fn scale_and_minimum(packed: &[u8], group: usize) -> [u8; 2] {
    if group < 4 {
        return [packed[group] & 63, packed[group + 4] & 63];
    }
    let low = packed[group + 4];
    [low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4]
}

/// Low halves, upper two bits, scales of 16 columns, factor.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, factor) = rest.split_at(16);
    let factor = half_at(factor, 0);
    for (column, out) in out.iter_mut().enumerate() {
        let (half, quarter, i) = (column / 128, column / 32 % 4, column % 32);
        let nibble = low[64 * half + 32 * (quarter % 2) + i] >> (4 * (quarter / 2)) & 15;
        let code = nibble | (high[32 * half + i] >> (2 * quarter) & 3) << 4;
        *out = (f32::from(code) - 32.0) * (factor * f32::from(scales[column / 16] as i8));
    }
}

/// OCP 8-bit floating point: four bits of exponent, three of mantissa, no infinity.
fn e4m3(bits: u8) -> f32 {
    if bits & 0x7f == 0x7f {
        return f32::NAN;
    }
    // Exponent and mantissa in an f32's place are the value times 2^-120, subnormals included.
    f32::from_bits(u32::from(bits & 0x80) << 24 | u32::from(bits & 0x7f) << 20) * 2f32.powi(120)
}
