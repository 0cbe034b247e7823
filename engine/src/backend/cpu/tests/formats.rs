//! Encoded matrices with random contents, and their values as each format's definition reads.

use half::f16;

use super::Random;
use crate::backend::{BlockFormat, MatrixView};

/// Every encoding, by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    Blocks(BlockFormat),
    /// Columns of a group, and whether these are scattered.
    Int4(usize, bool),
    /// Rows and columns of a block of scales.
    Fp8(usize, usize),
}

pub const ALL: [Format; 14] = [
    Format::Blocks(BlockFormat::Q8_0),
    Format::Blocks(BlockFormat::Q4_0),
    Format::Blocks(BlockFormat::Q4K),
    Format::Blocks(BlockFormat::Q5K),
    Format::Blocks(BlockFormat::Q6K),
    Format::Int4(32, false),
    Format::Int4(128, false),
    Format::Int4(usize::MAX, false),
    Format::Int4(64, true),
    Format::Int4(24, false),
    Format::Int4(40, true),
    Format::Fp8(usize::MAX, usize::MAX),
    Format::Fp8(1, usize::MAX),
    Format::Fp8(16, 64),
];

/// An encoded matrix that owns its bytes.
pub struct Encoded {
    format: Format,
    shape: [usize; 2],
    bytes: Vec<u8>,
    scales: Vec<u8>,
    zeros: Vec<u8>,
    groups: Option<Vec<u32>>,
    scales_f32: Vec<f32>,
}

impl Format {
    /// Widths that the format can have are the multiples of this.
    pub fn column_multiple(self) -> usize {
        match self {
            Self::Blocks(format) => format.elements_per_block(),
            Self::Int4(..) => 2,
            Self::Fp8(..) => 1,
        }
    }
}

fn byte(random: &mut Random) -> u8 {
    ((random.next() + 1.0) * 128.0) as u8
}

fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| byte(random)).collect()
}

fn small_f16(random: &mut Random) -> [u8; 2] {
    f16::from_f32(random.next() * 0.01).to_le_bytes()
}

fn f16_at(bytes: &[u8], index: usize) -> f64 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f64()
}

impl Encoded {
    pub fn random(random: &mut Random, format: Format, shape: [usize; 2]) -> Self {
        let [rows, cols] = shape;
        let none = Self { format, shape, bytes: vec![], scales: vec![], zeros: vec![], groups: None, scales_f32: vec![] };
        match format {
            Format::Blocks(block) => {
                let count = rows * cols / block.elements_per_block();
                let mut all = bytes(random, count * block.bytes_per_block());
                for bytes in all.chunks_exact_mut(block.bytes_per_block()) {
                    let factors = match block {
                        BlockFormat::Q8_0 | BlockFormat::Q4_0 => 0..2,
                        BlockFormat::Q4K | BlockFormat::Q5K => 0..4,
                        BlockFormat::Q6K => 208..210,
                    };
                    bytes[factors].chunks_exact_mut(2).for_each(|b| b.copy_from_slice(&small_f16(random)));
                }
                Self { bytes: all, ..none }
            }
            Format::Int4(size, scattered) => {
                let size = size.min(cols);
                let per_row = cols.div_ceil(size);
                let groups = scattered.then(|| {
                    let mut groups: Vec<u32> = (0..cols).map(|c| (c / size) as u32).collect();
                    (1..cols).for_each(|i| groups.swap(i, byte(random) as usize % (i + 1)));
                    groups
                });
                Self {
                    bytes: bytes(random, rows * cols / 2),
                    scales: (0..rows * per_row).flat_map(|_| small_f16(random)).collect(),
                    zeros: (0..rows * per_row).map(|_| byte(random) % 17).collect(),
                    groups,
                    ..none
                }
            }
            Format::Fp8(block_rows, block_cols) => {
                let count = rows.div_ceil(block_rows) * cols.div_ceil(block_cols);
                let bytes = (0..rows * cols).map(|_| byte(random)).map(|b| if b & 0x7f == 0x7f { 0 } else { b }).collect();
                Self { bytes, scales_f32: random.values(count), ..none }
            }
        }
    }

    pub fn view(&self) -> MatrixView<'_> {
        let [rows, cols] = self.shape;
        match self.format {
            Format::Blocks(format) => MatrixView::Blocks { format, shape: self.shape, bytes: &self.bytes },
            Format::Int4(size, _) => MatrixView::Int4 {
                shape: self.shape,
                group_size: size.min(cols),
                codes: &self.bytes,
                scales: &self.scales,
                zeros: &self.zeros,
                groups: self.groups.as_deref(),
            },
            Format::Fp8(block_rows, block_cols) => MatrixView::Fp8 {
                shape: self.shape,
                bytes: &self.bytes,
                scales: &self.scales_f32,
                scale_block: [block_rows.min(rows), block_cols.min(cols)],
            },
        }
    }

    /// All values, row by row.
    pub fn values(&self) -> Vec<f64> {
        let [rows, cols] = self.shape;
        let at = |i: usize| (i / cols, i % cols);
        match self.format {
            Format::Blocks(format) => {
                let (bytes, values) = (format.bytes_per_block(), format.elements_per_block());
                self.bytes.chunks_exact(bytes).flat_map(|block| (0..values).map(|i| block_value(format, block, i))).collect()
            }
            Format::Int4(size, _) => {
                let size = size.min(cols);
                let per_row = cols.div_ceil(size);
                let value = |i: usize| {
                    let (row, col) = at(i);
                    let group = self.groups.as_ref().map_or(col / size, |g| g[col] as usize) + row * per_row;
                    let code = self.bytes[i / 2] >> (4 * (i % 2)) & 15;
                    (f64::from(code) - f64::from(self.zeros[group])) * f16_at(&self.scales, group)
                };
                (0..rows * cols).map(value).collect()
            }
            Format::Fp8(block_rows, block_cols) => {
                let value = |i: usize| {
                    let (row, col) = at(i);
                    let scale = self.scales_f32[row / block_rows * cols.div_ceil(block_cols) + col / block_cols];
                    e4m3(self.bytes[i]) * f64::from(scale)
                };
                (0..rows * cols).map(value).collect()
            }
        }
    }
}

/// OCP 8-bit floating point: four bits of exponent with bias 7, three of mantissa, no infinity.
pub fn e4m3(bits: u8) -> f64 {
    let (sign, exponent, mantissa) = (bits >> 7, i32::from(bits >> 3 & 15), f64::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa * 2f64.powi(-9),
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// Value `i` of a block, as `dequantize_row_*` of ggml-quants.c define it.
fn block_value(format: BlockFormat, block: &[u8], i: usize) -> f64 {
    let nibble = |byte: u8, high: bool| if high { byte >> 4 } else { byte & 15 };
    match format {
        BlockFormat::Q8_0 => f64::from(block[2 + i].cast_signed()) * f16_at(block, 0),
        BlockFormat::Q4_0 => (f64::from(nibble(block[2 + i % 16], i >= 16)) - 8.0) * f16_at(block, 0),
        BlockFormat::Q4K | BlockFormat::Q5K => {
            let (scales, group) = (&block[4..16], i / 32);
            let (scale, minimum) = match group {
                0..4 => (scales[group] & 63, scales[group + 4] & 63),
                _ => ((scales[group + 4] & 15) + 16 * (scales[group - 4] >> 6), (scales[group + 4] >> 4) + 16 * (scales[group] >> 6)),
            };
            let nibbles = &block[block.len() - 128..];
            let mut code = nibble(nibbles[i / 64 * 32 + i % 32], i % 64 >= 32);
            if format == BlockFormat::Q5K && block[16 + i % 32] & (1 << group) != 0 {
                code += 16;
            }
            f16_at(block, 0) * f64::from(scale) * f64::from(code) - f16_at(block, 1) * f64::from(minimum)
        }
        BlockFormat::Q6K => {
            let (n, l) = (i / 128, i % 32);
            let (low, high) = (&block[64 * n..], block[128 + 32 * n + l]);
            let code = match i % 128 / 32 {
                0 => low[l] & 15 | (high & 3) << 4,
                1 => low[l + 32] & 15 | (high >> 2 & 3) << 4,
                2 => low[l] >> 4 | (high >> 4 & 3) << 4,
                _ => low[l + 32] >> 4 | (high >> 6) << 4,
            };
            f16_at(block, 104) * f64::from(block[192 + i / 16].cast_signed()) * (f64::from(code) - 32.0)
        }
    }
}
