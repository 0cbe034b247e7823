//! The encodings that kernels read, as `kernels/weights.cuh` describes their planes.

use tokenflow_gpu::{DevicePtr, Element};

use crate::backend::cuda::{args, config::size_of_element};

/// How a matrix is encoded on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Of the type that the backend computes in.
    Plain(Element),
    /// The same, of rows whose length is no multiple of 8.
    Odd(Element),
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    Int4,
    Fp8,
}

impl Format {
    /// In kernels' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain(Element::F32) => "f32",
            Self::Plain(Element::F16) => "f16",
            Self::Plain(Element::BF16) => "bf16",
            Self::Odd(Element::F32) => "f32_odd",
            Self::Odd(Element::F16) => "f16_odd",
            Self::Odd(Element::BF16) => "bf16_odd",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Int4 => "int4",
            Self::Fp8 => "fp8",
        }
    }

    /// The same in names of kernels that look up rows, where their length does not matter.
    pub(in super::super) fn embed_name(self) -> &'static str {
        match self {
            Self::Odd(element) => Self::Plain(element).name(),
            other => other.name(),
        }
    }

    /// Columns are a multiple of this.
    pub fn column_multiple(self) -> usize {
        match self {
            Self::Plain(_) => 8,
            Self::Odd(_) => 1,
            Self::Fp8 => 16,
            Self::Q8_0 | Self::Int4 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }
}

/// The planes of a matrix, in the order of [`args::Weight`]'s pointers.
pub(super) const PLANES: usize = 4;

/// A matrix on the device, but for where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub format: Format,
    pub features: usize,
    /// Those of the planes; more than the matrix has where columns are picked.
    pub columns: usize,
    /// Columns that share a scale: Int4 and FP8.
    pub group: usize,
    /// Features that share a scale: FP8.
    pub scale_features: usize,
    /// Whether groups have zeros of their own: Int4. Where they have none all are 8.
    pub has_zeros: bool,
}

impl Layout {
    /// Bytes of a feature in each plane. FP8's scales are not by features and lie in [`Layout::scale_bytes`].
    pub(super) fn row_bytes(&self) -> [usize; PLANES] {
        let Self { columns, group, has_zeros, .. } = *self;
        match self.format {
            Format::Plain(element) | Format::Odd(element) => [columns * size_of_element(element), 0, 0, 0],
            Format::Q8_0 => [columns, columns / 32 * 2, 0, 0],
            Format::Q4K => [columns / 2, columns / 256 * 4, columns / 32 * 2, 0],
            Format::Q5K => [columns / 2, columns / 256 * 4, columns / 32 * 2, columns / 8],
            Format::Q6K => [columns / 2, columns / 256 * 2, columns / 16, columns / 4],
            Format::Int4 => [columns / 2, columns.div_ceil(group) * 2, if has_zeros { columns.div_ceil(group) } else { 0 }, 0],
            Format::Fp8 => [columns, 0, 0, 0],
        }
    }

    /// Bytes of a table of scales for blocks of features: FP8's, else none.
    pub(super) fn scale_bytes(&self) -> usize {
        match self.format {
            Format::Fp8 => self.features.div_ceil(self.scale_features) * self.columns.div_ceil(self.group) * size_of::<f32>(),
            _ => 0,
        }
    }

    /// What kernels are told.
    pub(super) fn args(&self, planes: [DevicePtr; PLANES]) -> args::Weight {
        let [codes, scales, offsets, high] = planes;
        let offsets = if self.row_bytes()[2] == 0 { DevicePtr::NULL } else { offsets };
        args::Weight {
            codes,
            scales,
            offsets,
            high,
            features: self.features as u32,
            columns: self.columns as u32,
            group: self.group as u32,
            scale_features: self.scale_features as u32,
        }
    }
}
