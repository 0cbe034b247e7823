//! What a loader gives: a rank's slice of a tensor, borrowed from the mapped file where it lies there as it is wanted.

use std::borrow::Cow;

use crate::backend::{BlockFormat, DType, MatrixView, TensorView};

/// A vector in one of the plain types.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    pub(super) dtype: DType,
    pub(super) shape: [usize; 2],
    pub(super) bytes: Cow<'a, [u8]>,
}

impl Tensor<'_> {
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: self.shape, bytes: &self.bytes }
    }
}

/// A matrix in whichever encoding the checkpoint has it.
#[derive(Clone, Debug)]
pub enum Matrix<'a> {
    Plain(Tensor<'a>),
    Blocks {
        format: BlockFormat,
        shape: [usize; 2],
        bytes: Cow<'a, [u8]>,
    },
    /// In the canonical form of [`MatrixView::Int4`].
    Int4 {
        shape: [usize; 2],
        group_size: usize,
        codes: Vec<u8>,
        scales: Vec<u8>,
        zeros: Vec<u8>,
        groups: Option<Vec<u32>>,
    },
    Fp8 {
        shape: [usize; 2],
        bytes: Cow<'a, [u8]>,
        scales: Vec<f32>,
        scale_block: [usize; 2],
    },
}

impl Matrix<'_> {
    pub fn view(&self) -> MatrixView<'_> {
        match self {
            Self::Plain(tensor) => MatrixView::Plain(tensor.view()),
            Self::Blocks { format, shape, bytes } => MatrixView::Blocks { format: *format, shape: *shape, bytes },
            Self::Int4 { shape, group_size, codes, scales, zeros, groups } => {
                MatrixView::Int4 { shape: *shape, group_size: *group_size, codes, scales, zeros, groups: groups.as_deref() }
            }
            Self::Fp8 { shape, bytes, scales, scale_block } => MatrixView::Fp8 { shape: *shape, bytes, scales, scale_block: *scale_block },
        }
    }
}
