//! Checkpoint tensors as a backend receives them: borrowed bytes with a type and a shape, encoded as in the file.
//! Nothing here is aligned; [`MatrixView::check`] says whether lengths and shapes fit each other.

/// Element types as checkpoints name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    F16,
    BF16,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// A checkpoint tensor as it lies in the mapped file, or a rank's slice of it: little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub dtype: DType,
    /// `[rows, cols]`; `rows` is 1 for vectors.
    pub shape: [usize; 2],
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// All values, widened exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            DType::F16 => self.bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            DType::BF16 => self.bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        }
    }
}

/// Blocks of GGUF files (ggml-common.h): a row is a whole number of them, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// f16 scale, 32 signed bytes.
    Q8_0,
    /// f16 scale, 32 values of 4 bits less 8: the low halves of 16 bytes, then the high ones.
    Q4_0,
    /// f16 scale and minimum of 256 values, 6-bit scales and minima of each 32, 4-bit values.
    Q4K,
    /// As `Q4K` with a fifth bit of each value.
    Q5K,
    /// 6-bit values less 32, signed byte scales of each 16, f16 scale of 256.
    Q6K,
}

impl BlockFormat {
    /// Values in a block.
    pub const fn elements_per_block(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    pub const fn bytes_per_block(self) -> usize {
        match self {
            Self::Q8_0 => 2 + 32,
            Self::Q4_0 => 2 + 16,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }
}

/// A weight matrix `[rows, cols]` as it is encoded in a checkpoint, or a rank's slice of it.
#[derive(Clone, Copy, Debug)]
pub enum MatrixView<'a> {
    Plain(TensorView<'a>),
    /// GGUF blocks.
    Blocks {
        format: BlockFormat,
        shape: [usize; 2],
        bytes: &'a [u8],
    },
    /// 4-bit integers in groups along the columns (AWQ, GPTQ), made canonical by the loader:
    /// `value[r][c] = (code[r][c] - zero[r][g]) * scale[r][g]`, where `g` is the group of column `c`.
    Int4 {
        shape: [usize; 2],
        /// Columns of a group; 32 or a multiple of it, or all.
        group_size: usize,
        /// `[rows, cols / 2]`, the even column in the low half of a byte.
        codes: &'a [u8],
        /// `[rows, groups]`, f16 little-endian.
        scales: &'a [u8],
        /// `[rows, groups]`, 0 to 16.
        zeros: &'a [u8],
        /// The group of each column where they do not simply follow each other (GPTQ's act-order); `None` is `c / group_size`.
        groups: Option<&'a [u32]>,
    },
    /// e4m3 bytes with one f32 scale for each block of `scale_block` (rows, cols): a block of the whole shape is a scale per tensor,
    /// `[1, cols]` a scale per row. `scales` is `[ceil(rows / block rows), ceil(cols / block cols)]`.
    Fp8 {
        shape: [usize; 2],
        bytes: &'a [u8],
        scales: &'a [f32],
        scale_block: [usize; 2],
    },
}

impl<'a> From<TensorView<'a>> for MatrixView<'a> {
    fn from(view: TensorView<'a>) -> Self {
        Self::Plain(view)
    }
}

impl MatrixView<'_> {
    /// `[rows, cols]`
    pub fn shape(&self) -> [usize; 2] {
        match *self {
            Self::Plain(TensorView { shape, .. }) | Self::Blocks { shape, .. } | Self::Int4 { shape, .. } | Self::Fp8 { shape, .. } => {
                shape
            }
        }
    }

    /// What the encoding is called in messages.
    pub fn encoding(&self) -> String {
        match self {
            Self::Plain(view) => format!("{:?}", view.dtype),
            Self::Blocks { format, .. } => format!("{format:?}"),
            Self::Int4 { group_size, .. } => format!("4-bit in groups of {group_size}"),
            Self::Fp8 { scale_block: [rows, cols], .. } => format!("e4m3 with scales of {rows} x {cols}"),
        }
    }

    /// Whether the pieces have the lengths that the shape asks for.
    ///
    /// # Errors
    /// One sentence with what does not fit.
    pub fn check(&self) -> Result<(), String> {
        let [rows, cols] = self.shape();
        let expect = |what: &str, found: usize, each_row: Option<usize>| match each_row.and_then(|n| n.checked_mul(rows)) {
            Some(expected) if expected == found => Ok(()),
            _ => Err(format!("{found} {what} are not a matrix of {rows} x {cols} {}", self.encoding())),
        };
        match *self {
            Self::Plain(TensorView { dtype, bytes, .. }) => expect("bytes", bytes.len(), cols.checked_mul(dtype.size())),
            Self::Blocks { format, bytes, .. } => {
                let whole = cols.is_multiple_of(format.elements_per_block());
                let row_bytes = (cols / format.elements_per_block()).checked_mul(format.bytes_per_block());
                expect("bytes", bytes.len(), row_bytes.filter(|_| whole))
            }
            Self::Int4 { group_size, codes, scales, zeros, groups, .. } => {
                if group_size == 0 || !cols.is_multiple_of(2) {
                    return Err(format!("4-bit values in groups of {group_size} cannot fill {cols} columns"));
                }
                let per_row = cols.div_ceil(group_size);
                expect("bytes", codes.len(), Some(cols / 2))?;
                expect("bytes of scales", scales.len(), per_row.checked_mul(2))?;
                expect("zeros", zeros.len(), Some(per_row))?;
                match groups {
                    Some(groups) if groups.len() != cols => Err(format!("{} group indices were given for {cols} columns", groups.len())),
                    Some(groups) if groups.iter().any(|&g| g as usize >= per_row) => {
                        Err(format!("a group index is not below {per_row}, the number of groups"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Fp8 { bytes, scales, scale_block: [block_rows, block_cols], .. } => {
                if block_rows == 0 || block_cols == 0 {
                    return Err("blocks of scales have no extent".into());
                }
                expect("bytes", bytes.len(), Some(cols))?;
                let expected = rows.div_ceil(block_rows) * cols.div_ceil(block_cols);
                if scales.len() == expected { Ok(()) } else { Err(format!("{} scales were given for {expected} blocks", scales.len())) }
            }
        }
    }
}
