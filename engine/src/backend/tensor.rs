//! Checkpoint tensors as a backend receives them: borrowed bytes with a type and a shape.
//! Nothing here is aligned or validated beyond its length, which the loader guarantees.

/// Element types as checkpoints name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    F16,
    BF16,
}

/// A checkpoint tensor as it lies in the mapped file, or a rank's slice of it: little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub dtype: DType,
    /// `[rows, cols]`; `rows` is 1 for vectors.
    pub shape: [usize; 2],
    pub bytes: &'a [u8],
}
