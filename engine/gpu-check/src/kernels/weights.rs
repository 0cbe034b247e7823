//! Weight matrices in every encoding: as a checkpoint has them for the CPU backend, and as planes for the device.

use half::{bf16, f16};
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::backend::{BlockFormat, DType, MatrixView, TensorView};

use super::Random;
use crate::card::Device;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    Bf16,
    F16,
    F32,
    Q8_0,
    Q4_0,
    Q4K,
    Q5K,
    Q6K,
    Int4,
    Fp8,
}

impl Format {
    /// Whatever the activations' type is.
    pub const ENCODED: [Self; 7] = [Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Q5K, Self::Q6K, Self::Int4, Self::Fp8];

    /// In kernels' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            // Groups of 32 whose zeros are all 8.
            Self::Int4 | Self::Q4_0 => "int4",
            Self::Fp8 => "fp8",
        }
    }

    /// Columns are a multiple of this.
    pub fn column_multiple(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 | Self::F32 => 8,
            Self::Fp8 => 16,
            Self::Q8_0 | Self::Q4_0 | Self::Int4 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }
}

/// Columns that share a scale, and for FP8 features too.
const GROUP: usize = 64;
const SCALE_FEATURES: usize = 24;

/// A matrix as in a checkpoint.
pub struct Checkpoint {
    format: Format,
    shape: [usize; 2],
    bytes: Vec<u8>,
    scales: Vec<u8>,
    zeros: Vec<u8>,
    scales_f32: Vec<f32>,
}

fn small_f16(random: &mut Random) -> [u8; 2] {
    f16::from_f32(random.value() * 0.05).to_le_bytes()
}

impl Checkpoint {
    pub fn random(random: &mut Random, format: Format, shape: [usize; 2]) -> Self {
        let [rows, cols] = shape;
        let mut made = Self { format, shape, bytes: vec![], scales: vec![], zeros: vec![], scales_f32: vec![] };
        let mut bytes = |len: usize| -> Vec<u8> { (0..len).map(|_| random.bits() as u8).collect() };
        match format {
            Format::Bf16 => made.bytes = random.values(rows * cols).iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            Format::F16 => made.bytes = random.values(rows * cols).iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Format::F32 => made.bytes = random.values(rows * cols).iter().flat_map(|v| v.to_le_bytes()).collect(),
            Format::Q8_0 | Format::Q4_0 => {
                let block_bytes = if format == Format::Q8_0 { 34 } else { 18 };
                made.bytes = bytes(rows * cols / 32 * block_bytes);
                made.bytes.chunks_exact_mut(block_bytes).for_each(|block| block[..2].copy_from_slice(&small_f16(random)));
            }
            Format::Q4K | Format::Q5K => {
                let block_bytes = if format == Format::Q4K { 144 } else { 176 };
                made.bytes = bytes(rows * cols / 256 * block_bytes);
                for block in made.bytes.chunks_exact_mut(block_bytes) {
                    block[..2].copy_from_slice(&small_f16(random));
                    block[2..4].copy_from_slice(&small_f16(random));
                }
            }
            Format::Q6K => {
                made.bytes = bytes(rows * cols / 256 * 210);
                made.bytes.chunks_exact_mut(210).for_each(|block| block[208..].copy_from_slice(&small_f16(random)));
            }
            Format::Int4 => {
                made.bytes = bytes(rows * cols / 2);
                let groups = rows * cols.div_ceil(GROUP);
                made.zeros = bytes(groups).iter().map(|b| b % 17).collect();
                made.scales = (0..groups).flat_map(|_| small_f16(random)).collect();
            }
            Format::Fp8 => {
                made.bytes = bytes(rows * cols).into_iter().map(|b| if b & 0x7f == 0x7f { 0 } else { b }).collect();
                made.scales_f32 = random.values(rows.div_ceil(SCALE_FEATURES) * cols.div_ceil(GROUP)).iter().map(|v| v * 0.01).collect();
            }
        }
        made
    }

    pub fn view(&self) -> MatrixView<'_> {
        let plain = |dtype| MatrixView::Plain(TensorView { dtype, shape: self.shape, bytes: &self.bytes });
        let blocks = |format| MatrixView::Blocks { format, shape: self.shape, bytes: &self.bytes };
        match self.format {
            Format::Bf16 => plain(DType::BF16),
            Format::F16 => plain(DType::F16),
            Format::F32 => plain(DType::F32),
            Format::Q8_0 => blocks(BlockFormat::Q8_0),
            Format::Q4_0 => blocks(BlockFormat::Q4_0),
            Format::Q4K => blocks(BlockFormat::Q4K),
            Format::Q5K => blocks(BlockFormat::Q5K),
            Format::Q6K => blocks(BlockFormat::Q6K),
            Format::Int4 => MatrixView::Int4 {
                shape: self.shape,
                group_size: GROUP,
                codes: &self.bytes,
                scales: &self.scales,
                zeros: &self.zeros,
                groups: None,
            },
            Format::Fp8 => {
                MatrixView::Fp8 { shape: self.shape, bytes: &self.bytes, scales: &self.scales_f32, scale_block: [SCALE_FEATURES, GROUP] }
            }
        }
    }
}

/// As planes on the device.
///
/// # Errors
/// When memory is short.
pub fn upload(device: &Device, checkpoint: &Checkpoint) -> anyhow::Result<args::Weight> {
    let Checkpoint { format, shape: [features, columns], .. } = *checkpoint;
    let (mut codes, mut scales, mut offsets, mut high) = (Vec::<u8>::new(), Vec::<u8>::new(), Vec::<u8>::new(), Vec::<u8>::new());
    // 4 bits of each code, the even column in the low half of a byte.
    let halves = |codes: &[u8]| -> Vec<u8> { codes.chunks_exact(2).map(|pair| pair[0] & 15 | (pair[1] & 15) << 4).collect() };
    match format {
        Format::Q8_0 => checkpoint.bytes.chunks_exact(34).for_each(|block| {
            scales.extend(&block[..2]);
            codes.extend(&block[2..]);
        }),
        Format::Q4_0 => checkpoint.bytes.chunks_exact(18).for_each(|block| {
            scales.extend(&block[..2]);
            codes.extend(halves(&(0..32).map(|i| block[2 + i % 16] >> (i / 16 * 4)).collect::<Vec<_>>()));
        }),
        Format::Q4K | Format::Q5K => checkpoint.bytes.chunks_exact(if format == Format::Q4K { 144 } else { 176 }).for_each(|block| {
            scales.extend(&block[..4]);
            let six_bits = &block[4..16];
            offsets.extend((0..8).flat_map(|group| match group {
                0..4 => [six_bits[group] & 63, six_bits[group + 4] & 63],
                _ => [six_bits[group + 4] & 15 | six_bits[group - 4] >> 6 << 4, six_bits[group + 4] >> 4 | six_bits[group] >> 6 << 4],
            }));
            // Of 64 columns, the first 32 are the low halves of 32 bytes.
            let nibbles = &block[block.len() - 128..];
            codes.extend(halves(&(0..256).map(|i| nibbles[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)).collect::<Vec<_>>()));
            if format == Format::Q5K {
                let bit = |i: usize| block[16 + i % 32] >> (i / 32) & 1;
                high.extend((0..32).map(|byte| (0..8).fold(0, |all, i| all | bit(8 * byte + i) << i)));
            }
        }),
        Format::Q6K => checkpoint.bytes.chunks_exact(210).for_each(|block| {
            scales.extend(&block[208..]);
            offsets.extend(&block[192..208]);
            // Of 128 columns, the first 64 are the low halves of 64 bytes; 32 bytes have two more bits for each quarter.
            codes.extend(halves(&(0..256).map(|i| block[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4)).collect::<Vec<_>>()));
            let bits = |i: usize| block[128 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            high.extend((0..64).map(|byte| (0..4).fold(0, |all, i| all | bits(4 * byte + i) << (2 * i))));
        }),
        Format::Int4 => {
            codes.extend(&checkpoint.bytes);
            scales.extend(&checkpoint.scales);
            offsets.extend(&checkpoint.zeros);
        }
        Format::Fp8 => {
            codes.extend(&checkpoint.bytes);
            scales.extend(bytemuck::cast_slice::<f32, u8>(&checkpoint.scales_f32));
        }
        Format::Bf16 | Format::F16 | Format::F32 => codes.extend(&checkpoint.bytes),
    }
    // Nothing is uploaded as null.
    Ok(args::Weight {
        codes: device.upload(&codes)?,
        scales: device.upload(&scales)?,
        offsets: device.upload(&offsets)?,
        high: device.upload(&high)?,
        features: features as u32,
        columns: columns as u32,
        group: if format == Format::Q4_0 { 32 } else { GROUP as u32 },
        scale_features: SCALE_FEATURES as u32,
    })
}
