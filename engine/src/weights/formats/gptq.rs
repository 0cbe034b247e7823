//! GPTQ: `qweight` [in / 8, out] with eight input features to a word, `qzeros` [groups, out / 8], `scales` [groups, out], and `g_idx`
//! with the group of each input feature where activation order shuffled them.

use super::{
    Format, Wanted,
    declared::Declaration,
    packed::{PACK, Packed, expect_whole_words, words},
};
use crate::weights::{Matrix, WeightsError, checkpoint::TensorRef};

#[derive(Debug)]
struct Gptq {
    /// `None` for all columns.
    group_size: Option<usize>,
    /// The first version of the format stores zeros less 1.
    zero_offset: u8,
}

pub(super) fn declare(declaration: &Declaration) -> Result<Box<dyn Format>, WeightsError> {
    declaration.expect_bits("bits", 4)?;
    let zero_offset = match declaration.optional::<String>("checkpoint_format")?.as_deref() {
        None | Some("gptq") => 1,
        Some("gptq_v2") => 0,
        Some(other) => return Err(declaration.error("checkpoint_format", format!("is \"{other}\"; known are gptq and gptq_v2"))),
    };
    if declaration.optional::<serde_json::Map<_, _>>("dynamic")?.is_some_and(|rules| !rules.is_empty()) {
        return Err(declaration.error("dynamic", "gives modules different settings, which is not supported"));
    }
    Ok(Box::new(Gptq { group_size: declaration.group_size("group_size")?, zero_offset }))
}

impl Format for Gptq {
    fn matrix<'a>(&self, wanted: &Wanted<'a>) -> Result<Option<Matrix<'a>>, WeightsError> {
        let Some(weight) = wanted.sibling("qweight") else { return Ok(None) };
        expect_whole_words(wanted, &weight)?;
        let [rows, cols] = wanted.shape;
        let group_size = self.group_size.unwrap_or(cols);
        let num_groups = cols.div_ceil(group_size);
        let codes = words(&weight, [cols / PACK, rows])?;
        let zeros = words(&wanted.required("qzeros")?, [num_groups, rows / PACK])?;
        let groups = wanted.sibling("g_idx").map(|tensor| order(&tensor, cols, group_size, num_groups)).transpose()?.flatten();
        let packed = Packed {
            weight,
            scales: wanted.required("scales")?,
            group_size,
            groups,
            code: |row, col| (codes[col / PACK * rows + row] >> (4 * (col % PACK)) & 15) as u8,
            zero: |row, group| (zeros[group * (rows / PACK) + row / PACK] >> (4 * (row % PACK)) & 15) as u8 + self.zero_offset,
        };
        packed.matrix(wanted).map(Some)
    }
}

/// `g_idx`; `None` where the groups simply follow each other.
fn order(tensor: &TensorRef<'_>, cols: usize, group_size: usize, num_groups: usize) -> Result<Option<Vec<u32>>, WeightsError> {
    if tensor.dtype != "I32" {
        return Err(tensor.error(format!("has type {} where group indices are I32", tensor.dtype)));
    }
    tensor.expect_shape(&[cols])?;
    let groups: Vec<u32> = tensor.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if let Some(group) = groups.iter().find(|&&group| group as usize >= num_groups) {
        return Err(tensor.error(format!("names group {} of {num_groups}", *group as i32)));
    }
    let in_order = groups.iter().enumerate().all(|(col, &group)| group as usize == col / group_size);
    Ok((!in_order).then_some(groups))
}
