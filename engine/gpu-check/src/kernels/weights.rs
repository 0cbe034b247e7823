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
    Q4K,
    Int4,
    Fp8,
}

impl Format {
    pub const ALL: [Self; 7] = [Self::Bf16, Self::F16, Self::F32, Self::Q8_0, Self::Q4K, Self::Int4, Self::Fp8];
    /// Without f32, which products of 16 bits do not take.
    pub const NARROW: [Self; 6] = [Self::Bf16, Self::F16, Self::Q8_0, Self::Q4K, Self::Int4, Self::Fp8];
    pub const ENCODED: [Self; 4] = [Self::Q8_0, Self::Q4K, Self::Int4, Self::Fp8];

    /// In kernels' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Int4 => "int4",
            Self::Fp8 => "fp8",
        }
    }

    /// Columns are a multiple of this.
    pub fn column_multiple(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 | Self::F32 => 8,
            Self::Fp8 => 16,
            Self::Q8_0 | Self::Int4 => 32,
            Self::Q4K => 256,
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
            Format::Q8_0 => {
                made.bytes = bytes(rows * cols / 32 * 34);
                made.bytes.chunks_exact_mut(34).for_each(|block| block[..2].copy_from_slice(&small_f16(random)));
            }
            Format::Q4K => {
                made.bytes = bytes(rows * cols / 256 * 144);
                for block in made.bytes.chunks_exact_mut(144) {
                    block[..2].copy_from_slice(&small_f16(random));
                    block[2..4].copy_from_slice(&small_f16(random));
                }
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
            Format::Q4K => blocks(BlockFormat::Q4K),
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
    let (mut codes, mut scales, mut offsets) = (Vec::<u8>::new(), Vec::<u8>::new(), Vec::<u8>::new());
    match format {
        Format::Q8_0 => checkpoint.bytes.chunks_exact(34).for_each(|block| {
            scales.extend(&block[..2]);
            codes.extend(&block[2..]);
        }),
        Format::Q4K => checkpoint.bytes.chunks_exact(144).for_each(|block| {
            scales.extend(&block[..4]);
            let six_bits = &block[4..16];
            offsets.extend((0..8).flat_map(|group| match group {
                0..4 => [six_bits[group] & 63, six_bits[group + 4] & 63],
                _ => [six_bits[group + 4] & 15 | six_bits[group - 4] >> 6 << 4, six_bits[group + 4] >> 4 | six_bits[group] >> 6 << 4],
            }));
            // Of 64 columns, the first 32 are the low halves of 32 bytes.
            let code = |column: usize| block[16 + column / 64 * 32 + column % 32] >> (column / 32 % 2 * 4) & 15;
            codes.extend((0..128).map(|i| code(2 * i) | code(2 * i + 1) << 4));
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
        features: features as u32,
        columns: columns as u32,
        group: GROUP as u32,
        scale_features: SCALE_FEATURES as u32,
    })
}
