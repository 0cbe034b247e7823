//! 4-bit integers as AWQ and GPTQ pack them, eight to a word and by input feature, turned into the canonical form: by output feature.

use std::ops::Range;

use half::f16;

use super::{Wanted, plain};
use crate::weights::{Cut, Matrix, WeightsError, checkpoint::TensorRef};

/// Codes in a word.
pub(super) const PACK: usize = 8;

/// Rows that are unpacked at a time, so that what is written stays in the first-level cache.
const TILE: usize = 64;

/// Tensors of one matrix and how to read their codes; `[groups, …]` throughout.
pub(super) struct Packed<'a, C, Z> {
    pub(super) weight: TensorRef<'a>,
    pub(super) scales: TensorRef<'a>,
    pub(super) group_size: usize,
    /// The group of every column, where they do not simply follow each other.
    pub(super) groups: Option<Vec<u32>>,
    /// The code at (row, col).
    pub(super) code: C,
    /// The zero at (row, group).
    pub(super) zero: Z,
}

impl<C: Fn(usize, usize) -> u8, Z: Fn(usize, usize) -> u8> Packed<'_, C, Z> {
    pub(super) fn matrix<'m>(self, wanted: &Wanted<'_>) -> Result<Matrix<'m>, WeightsError> {
        let [all_rows, all_cols] = wanted.shape;
        if !all_cols.is_multiple_of(2) {
            return Err(self.weight.error(format!("has {all_cols} columns; 4-bit values come in pairs")));
        }
        let num_groups = all_cols.div_ceil(self.group_size);
        self.scales.expect_shape(&[num_groups, all_rows])?;
        if self.groups.is_some() && wanted.cut == Cut::Cols && wanted.size > 1 {
            return Err(self.weight.error("cannot be cut by columns: activation order spreads every group over all of them"));
        }
        let unit = if num_groups == 1 { 2 } else { self.group_size };
        let (rows, cols) = wanted.ranges(unit, &self.weight)?;
        let groups_used = cols.start / self.group_size..cols.end.div_ceil(self.group_size);
        let scales = self.scales_of(&rows, &groups_used, all_rows)?;
        let zeros = rows.clone().flat_map(|row| groups_used.clone().map(move |group| (row, group)));
        let zeros = zeros.map(|(row, group)| (self.zero)(row, group)).collect();
        let codes = self.codes(&rows, &cols);
        Ok(Matrix::Int4 { shape: [rows.len(), cols.len()], group_size: self.group_size, codes, scales, zeros, groups: self.groups })
    }

    fn codes(&self, rows: &Range<usize>, cols: &Range<usize>) -> Vec<u8> {
        let row_bytes = cols.len() / 2;
        let mut codes = vec![0; rows.len() * row_bytes];
        for (tile, out) in codes.chunks_mut(TILE * row_bytes.max(1)).enumerate() {
            for pair in 0..row_bytes {
                let col = cols.start + 2 * pair;
                for (i, row) in out.chunks_exact_mut(row_bytes).enumerate() {
                    let r = rows.start + tile * TILE + i;
                    row[pair] = (self.code)(r, col) | (self.code)(r, col + 1) << 4;
                }
            }
        }
        codes
    }

    fn scales_of(&self, rows: &Range<usize>, groups: &Range<usize>, all_rows: usize) -> Result<Vec<u8>, WeightsError> {
        let values = plain::values(&self.scales)?;
        let mut out = Vec::with_capacity(rows.len() * groups.len() * 2);
        for row in rows.clone() {
            for group in groups.clone() {
                let scale = f16::from_f32(values[group * all_rows + row]);
                if !scale.is_finite() {
                    return Err(self.scales.error("has a scale that is infinite or not a number"));
                }
                out.extend(scale.to_le_bytes());
            }
        }
        Ok(out)
    }
}

/// A tensor of 32-bit words.
pub(super) fn words(tensor: &TensorRef<'_>, shape: [usize; 2]) -> Result<Vec<u32>, WeightsError> {
    if tensor.dtype != "I32" && tensor.dtype != "U32" {
        return Err(tensor.error(format!("has type {} where packed words are I32", tensor.dtype)));
    }
    tensor.expect_shape(&shape)?;
    Ok(tensor.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// # Errors
/// When an axis does not fill whole words.
pub(super) fn expect_whole_words(wanted: &Wanted<'_>, tensor: &TensorRef<'_>) -> Result<(), WeightsError> {
    match wanted.shape.iter().find(|n| !n.is_multiple_of(PACK)) {
        None => Ok(()),
        Some(n) => Err(tensor.error(format!("belongs to a matrix with an axis of {n}, which is no multiple of {PACK}"))),
    }
}
