use std::{borrow::Cow, ops::Range};

use super::{
    Checkpoint, Matrix, Tensor, WeightsError,
    formats::{self, Wanted},
};

/// Along which axis a tensor-parallel group cuts a tensor `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every rank has the whole tensor.
    None,
    /// Output features (or the elements of a vector): each rank computes its share of the result.
    Rows,
    /// Input features: each rank computes a partial sum.
    Cols,
}

/// One rank's view of a checkpoint: it gives a tensor's slice and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    rank: usize,
    size: usize,
}

impl<'a> Loader<'a> {
    /// For a model on one device.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self::for_rank(checkpoint, 0, 1)
    }

    /// For one of the `size` ranks of a tensor-parallel group.
    pub fn for_rank(checkpoint: &'a Checkpoint, rank: usize, size: usize) -> Self {
        assert!(rank < size, "rank {rank} of {size}");
        Self { checkpoint, rank, size }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks that share the model's matrices.
    pub fn group_size(&self) -> usize {
        self.size
    }

    /// This rank's part of the matrix `name` ("model.layers.0.mlp.up_proj.weight"), whose whole shape must be `[rows, cols]`, in
    /// whichever encoding the checkpoint has it.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape or a type that no backend takes, or cannot be cut into so many parts.
    pub fn matrix(&self, name: &str, shape: [usize; 2], cut: Cut) -> Result<Matrix<'a>, WeightsError> {
        formats::matrix(&self.wanted(name, shape, cut))
    }

    /// This rank's part of the vector `name` of `len` elements; its view has one row. [`Cut::Rows`] cuts the elements.
    ///
    /// # Errors
    /// As [`Loader::matrix`].
    pub fn vector(&self, name: &str, len: usize, cut: Cut) -> Result<Tensor<'a>, WeightsError> {
        // The elements of a vector are one per row of the matrix that it belongs to.
        let column = formats::plain::slice(&self.wanted(name, [len, 1], cut), &[len])?;
        Ok(Tensor { shape: [1, column.shape[0]], ..column })
    }

    /// Says that what [`Loader::matrix`] gave of `name` has been used, so that the file's bytes need not stay in memory.
    pub fn release(&self, name: &str) {
        self.checkpoint.release(name);
        if let Some(base) = name.strip_suffix(".weight") {
            self.checkpoint.release(&format!("{base}.qweight"));
        }
    }

    fn wanted(&self, name: &str, shape: [usize; 2], cut: Cut) -> Wanted<'a> {
        Wanted { checkpoint: self.checkpoint, name: name.into(), shape, cut, rank: self.rank, size: self.size }
    }
}

/// Rows `rows` and bytes `columns` of each of them, from rows of `row_bytes`; borrowed where that is one piece.
pub(super) fn cut_bytes(bytes: &[u8], row_bytes: usize, rows: Range<usize>, columns: Range<usize>) -> Cow<'_, [u8]> {
    let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
    if columns == (0..row_bytes) {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(bytes.chunks_exact(row_bytes).flat_map(|row| &row[columns.clone()]).copied().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::{Dtype, tensor::TensorView as Stored};

    use super::*;

    fn checkpoint(dtype: Dtype, shape: Vec<usize>, data: &[u8]) -> Checkpoint {
        let bytes = safetensors::serialize([("w", Stored::new(dtype, shape, data).unwrap())], None).unwrap();
        Checkpoint::embedded("memory", Vec::leak(bytes)).unwrap()
    }

    fn plain(matrix: Matrix<'_>) -> Tensor<'_> {
        match matrix {
            Matrix::Plain(tensor) => tensor,
            other => panic!("{} is not plain", other.view().encoding()),
        }
    }

    #[test]
    fn refuses_what_the_model_cannot_use() {
        let f32s = checkpoint(Dtype::F32, vec![3, 2], &[0; 24]);
        let message = |r: WeightsError| r.to_string();
        let loader = Loader::new(&f32s);
        assert_eq!(
            message(loader.matrix("w", [2, 3], Cut::None).unwrap_err()),
            "memory: tensor \"w\" has shape [3, 2] where the config asks for [2, 3]"
        );
        assert_eq!(
            message(loader.vector("w", 6, Cut::None).unwrap_err()),
            "memory: tensor \"w\" has shape [3, 2] where the config asks for [6]"
        );
        assert_eq!(message(loader.vector("v", 6, Cut::None).unwrap_err()), "the checkpoint memory has no tensor \"v\"");
        assert_eq!(message(loader.matrix("v", [6, 1], Cut::None).unwrap_err()), "the checkpoint memory has no tensor \"v\"");
        assert_eq!(
            message(Loader::for_rank(&f32s, 1, 2).matrix("w", [3, 2], Cut::Rows).unwrap_err()),
            "memory: tensor \"w\" cannot be cut into 2 equal parts along an axis of 3"
        );
        let int = checkpoint(Dtype::I64, vec![1], &[0; 8]);
        assert_eq!(
            message(Loader::new(&int).vector("w", 1, Cut::None).unwrap_err()),
            "memory: tensor \"w\" has type I64; F32, F16 and BF16 are supported"
        );
        assert!(message(Loader::new(&int).matrix("w", [1, 1], Cut::None).unwrap_err()).contains("has type I64; "));
    }

    proptest! {
        #[test]
        fn slices_of_all_ranks_make_the_whole(part_rows in 1usize..5, part_cols in 1usize..5, size in 1usize..5, wide: bool) {
            let (rows, cols) = (part_rows * size, part_cols * size);
            let (dtype, width) = if wide { (Dtype::F32, 4) } else { (Dtype::BF16, 2) };
            let data: Vec<u8> = (0..rows * cols * width).map(|i| i as u8).collect();
            let checkpoint = checkpoint(dtype, vec![rows, cols], &data);
            let slices = |cut| (0..size).map(|rank| plain(Loader::for_rank(&checkpoint, rank, size).matrix("w", [rows, cols], cut).unwrap())).collect::<Vec<_>>();

            let by_rows = slices(Cut::Rows);
            prop_assert!(by_rows.iter().all(|t| t.view().shape == [part_rows, cols]));
            prop_assert_eq!(by_rows.iter().flat_map(|t| t.view().bytes).copied().collect::<Vec<u8>>(), data.clone());

            let by_cols = slices(Cut::Cols);
            prop_assert!(by_cols.iter().all(|t| t.view().shape == [rows, part_cols]));
            let part = part_cols * width;
            let joined: Vec<u8> = (0..rows).flat_map(|r| by_cols.iter().flat_map(move |t| t.bytes[r * part..(r + 1) * part].to_vec())).collect();
            prop_assert_eq!(joined, data.clone());
            prop_assert!(slices(Cut::None).iter().all(|t| t.bytes[..] == data[..]));
        }
    }

    #[test]
    fn a_vector_is_cut_by_elements() {
        let checkpoint = checkpoint(Dtype::F16, vec![4], &[0, 1, 2, 3, 4, 5, 6, 7]);
        let tensor = Loader::for_rank(&checkpoint, 1, 2).vector("w", 4, Cut::Rows).unwrap();
        assert_eq!((tensor.view().shape, tensor.view().bytes), ([1, 2], &[4u8, 5, 6, 7][..]));
    }
}
