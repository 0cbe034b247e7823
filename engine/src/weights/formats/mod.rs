//! Encodings of matrices, one file each. To add one, write the file and name it in [`by_type`], where a tensor's type tells it, or in
//! [`by_method`], where `config.json` does.

mod awq;
mod declared;
mod fp8;
mod ggml;
mod gptq;
mod packed;
pub(super) mod plain;

use std::{fmt::Debug, ops::Range};

pub(super) use declared::{declared, declared_in};

use super::{Checkpoint, Cut, Matrix, WeightsError, checkpoint::TensorRef};
use declared::Declaration;

/// How a checkpoint stores matrices.
pub(super) trait Format: Debug + Send + Sync {
    /// This rank's part of the matrix; `None` where the checkpoint does not have it in this format.
    fn matrix<'a>(&self, wanted: &Wanted<'a>) -> Result<Option<Matrix<'a>>, WeightsError>;
}

type Declare = fn(&Declaration) -> Result<Box<dyn Format>, WeightsError>;

/// Told by `quantization_config.quant_method`.
fn by_method() -> [(&'static str, Declare); 4] {
    [("awq", awq::declare), ("gptq", gptq::declare), ("fp8", fp8::declare), ("compressed-tensors", fp8::declare_compressed)]
}

/// Told by the type of the tensor itself.
fn by_type() -> [&'static dyn Format; 2] {
    [&plain::Plain, &ggml::Blocks]
}

/// This rank's part of the matrix, in whichever format the checkpoint has it.
pub(super) fn matrix<'a>(wanted: &Wanted<'a>) -> Result<Matrix<'a>, WeightsError> {
    for format in wanted.checkpoint.format().into_iter().chain(by_type()) {
        if let Some(matrix) = format.matrix(wanted)? {
            return Ok(matrix);
        }
    }
    let tensor = wanted.checkpoint.get(&wanted.name)?;
    let dtype = tensor.dtype;
    Err(tensor.error(match dtype {
        "F8_E4M3" => "has type F8_E4M3, but config.json has no quantization_config that says how it is scaled".to_owned(),
        _ => format!("has type {dtype}; F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K are supported"),
    }))
}

/// What a model asks for: one matrix, or one rank's part of it.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) name: String,
    /// `[rows, cols]` of the whole.
    pub(super) shape: [usize; 2],
    pub(super) cut: Cut,
    pub(super) rank: usize,
    pub(super) size: usize,
}

impl<'a> Wanted<'a> {
    /// The tensor beside the matrix: "….qweight" for "….weight".
    fn sibling(&self, suffix: &str) -> Option<TensorRef<'a>> {
        self.checkpoint.find(&self.sibling_name(suffix)?)
    }

    /// # Errors
    /// When it is missing.
    fn required(&self, suffix: &str) -> Result<TensorRef<'a>, WeightsError> {
        self.checkpoint.get(&self.sibling_name(suffix).unwrap_or_else(|| self.name.clone()))
    }

    fn sibling_name(&self, suffix: &str) -> Option<String> {
        self.name.strip_suffix("weight").filter(|base| base.ends_with('.')).map(|base| format!("{base}{suffix}"))
    }

    /// This rank's rows and columns. Columns can be cut at multiples of `unit` only.
    fn ranges(&self, unit: usize, tensor: &TensorRef<'_>) -> Result<(Range<usize>, Range<usize>), WeightsError> {
        let [rows, cols] = self.shape;
        match self.cut {
            Cut::None => Ok((0..rows, 0..cols)),
            Cut::Rows => Ok((self.share(rows, tensor)?, 0..cols)),
            Cut::Cols => {
                let range = self.share(cols, tensor)?;
                if self.size == 1 || (range.start.is_multiple_of(unit) && range.end.is_multiple_of(unit)) {
                    return Ok((0..rows, range));
                }
                Err(tensor.error(format!(
                    "cannot be cut into {} parts of {} columns: they come in groups of {unit}",
                    self.size,
                    range.len()
                )))
            }
        }
    }

    fn share(&self, n: usize, tensor: &TensorRef<'_>) -> Result<Range<usize>, WeightsError> {
        if !n.is_multiple_of(self.size) {
            return Err(tensor.error(format!("cannot be cut into {} equal parts along an axis of {n}", self.size)));
        }
        let part = n / self.size;
        Ok(self.rank * part..(self.rank + 1) * part)
    }
}
