//! F32, F16 and BF16: as the file has them.

use std::borrow::Cow;

use half::{bf16, f16};

use super::{Format, Wanted};
use crate::{
    backend::DType,
    weights::{
        Matrix, Tensor, WeightsError,
        checkpoint::{Arrangement, TensorRef},
        loader::cut_bytes,
    },
};

#[derive(Debug)]
pub(super) struct Plain;

impl Format for Plain {
    fn matrix<'a>(&self, wanted: &Wanted<'a>) -> Result<Option<Matrix<'a>>, WeightsError> {
        match wanted.checkpoint.find(&wanted.name) {
            Some(tensor) if dtype(&tensor).is_some() => slice(wanted, &wanted.shape).map(|tensor| Some(Matrix::Plain(tensor))),
            _ => Ok(None),
        }
    }
}

fn dtype(tensor: &TensorRef<'_>) -> Option<DType> {
    match tensor.dtype {
        "F32" => Some(DType::F32),
        "F16" => Some(DType::F16),
        "BF16" => Some(DType::BF16),
        _ => None,
    }
}

/// This rank's part of a plain tensor, whose shape in the checkpoint must be `stored_shape`.
pub(in crate::weights) fn slice<'a>(wanted: &Wanted<'a>, stored_shape: &[usize]) -> Result<Tensor<'a>, WeightsError> {
    let tensor = wanted.checkpoint.get(&wanted.name)?;
    let Some(dtype) = dtype(&tensor) else {
        return Err(tensor.error(format!("has type {}; F32, F16 and BF16 are supported", tensor.dtype)));
    };
    tensor.expect_shape(stored_shape)?;
    let (rows, cols) = wanted.ranges(1, &tensor)?;
    let size = dtype.size();
    let shape = [rows.len(), cols.len()];
    let columns = cols.start * size..cols.end * size;
    let row_bytes = wanted.shape[1] * size;
    match tensor.arrangement {
        Arrangement::AsIs => Ok(Tensor { dtype, shape, bytes: cut_bytes(tensor.bytes, row_bytes, rows, columns) }),
        Arrangement::RotaryPairs { head_dim } => {
            let gathered = rows.flat_map(|row| {
                let start = stored_row(row, head_dim) * row_bytes;
                &tensor.bytes[start + columns.start..start + columns.end]
            });
            Ok(Tensor { dtype, shape, bytes: Cow::Owned(gathered.copied().collect()) })
        }
        Arrangement::PlusOne => {
            let part = cut_bytes(tensor.bytes, row_bytes, rows, columns);
            let values = to_f32(dtype, &part).flat_map(|value| (value - 1.0).to_le_bytes());
            Ok(Tensor { dtype: DType::F32, shape, bytes: Cow::Owned(values.collect()) })
        }
    }
}

/// Where the row that a model calls `row` lies among rotated pairs.
pub(super) fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, within, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + 2 * (within % half) + within / half
}

pub(super) fn to_f32(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(dtype.size()).map(move |b| match dtype {
        DType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        DType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        DType::BF16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
    })
}

/// All values of a tensor of scales or the like.
pub(super) fn values(tensor: &TensorRef<'_>) -> Result<Vec<f32>, WeightsError> {
    match dtype(tensor) {
        Some(dtype) => Ok(to_f32(dtype, tensor.bytes).collect()),
        None => Err(tensor.error(format!("has type {}; F32, F16 and BF16 are supported", tensor.dtype))),
    }
}
