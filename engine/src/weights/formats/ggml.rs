//! GGUF's blocks: kept packed. Rows move as whole blocks; columns are cut between blocks.

use std::borrow::Cow;

use super::{Format, Wanted, plain::stored_row};
use crate::{
    backend::BlockFormat,
    weights::{Matrix, WeightsError, checkpoint::Arrangement, loader::cut_bytes},
};

#[derive(Debug)]
pub(super) struct Blocks;

impl Format for Blocks {
    fn matrix<'a>(&self, wanted: &Wanted<'a>) -> Result<Option<Matrix<'a>>, WeightsError> {
        let Some((tensor, format)) = wanted.checkpoint.find(&wanted.name).and_then(|tensor| Some((tensor, block_format(tensor.dtype)?)))
        else {
            return Ok(None);
        };
        tensor.expect_shape(&wanted.shape)?;
        let unit = format.elements_per_block();
        let (rows, cols) = wanted.ranges(unit, &tensor)?;
        let bytes_of = |elements: usize| elements / unit * format.bytes_per_block();
        let shape = [rows.len(), cols.len()];
        let row_bytes = bytes_of(wanted.shape[1]);
        let columns = bytes_of(cols.start)..bytes_of(cols.end);
        let bytes = match tensor.arrangement {
            Arrangement::AsIs => cut_bytes(tensor.bytes, row_bytes, rows, columns),
            Arrangement::RotaryPairs { head_dim } => {
                let gathered = rows.flat_map(|row| {
                    let start = stored_row(row, head_dim) * row_bytes;
                    &tensor.bytes[start + columns.start..start + columns.end]
                });
                Cow::Owned(gathered.copied().collect())
            }
            Arrangement::PlusOne => return Err(tensor.error(format!("is a norm of type {}; F32 was expected", tensor.dtype))),
        };
        Ok(Some(Matrix::Blocks { format, shape, bytes }))
    }
}

fn block_format(dtype: &str) -> Option<BlockFormat> {
    Some(match dtype {
        "Q8_0" => BlockFormat::Q8_0,
        "Q4_0" => BlockFormat::Q4_0,
        "Q4_K" => BlockFormat::Q4K,
        "Q5_K" => BlockFormat::Q5K,
        "Q6_K" => BlockFormat::Q6K,
        _ => return None,
    })
}
