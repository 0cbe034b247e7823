//! AWQ as AutoAWQ's GEMM kernels want it: `qweight` [in, out / 8], `qzeros` [groups, out / 8], `scales` [groups, out]; a word's
//! nibbles hold the output features 0, 2, 4, 6, 1, 3, 5, 7.

use super::{
    Format, Wanted,
    declared::Declaration,
    packed::{PACK, Packed, expect_whole_words, words},
};
use crate::weights::{Matrix, WeightsError};

/// Which nibble has the output feature of that rank in its word.
const NIBBLE: [usize; PACK] = [0, 4, 1, 5, 2, 6, 3, 7];

#[derive(Debug)]
struct Awq {
    /// `None` for all columns.
    group_size: Option<usize>,
}

pub(super) fn declare(declaration: &Declaration) -> Result<Box<dyn Format>, WeightsError> {
    declaration.expect_bits("bits", 4)?;
    let version: Option<String> = declaration.optional("version")?;
    if let Some(version) = version.filter(|version| !version.eq_ignore_ascii_case("gemm")) {
        return Err(declaration.error("version", format!("is \"{version}\"; only \"gemm\" is supported")));
    }
    if declaration.optional::<bool>("zero_point")? == Some(false) {
        return Err(declaration.error("zero_point", "is false; only true is supported"));
    }
    Ok(Box::new(Awq { group_size: declaration.group_size("group_size")? }))
}

impl Format for Awq {
    fn matrix<'a>(&self, wanted: &Wanted<'a>) -> Result<Option<Matrix<'a>>, WeightsError> {
        let Some(weight) = wanted.sibling("qweight") else { return Ok(None) };
        expect_whole_words(wanted, &weight)?;
        let [rows, cols] = wanted.shape;
        let (group_size, row_words) = (self.group_size.unwrap_or(cols), rows / PACK);
        let codes = words(&weight, [cols, row_words])?;
        let zeros = words(&wanted.required("qzeros")?, [cols.div_ceil(group_size), row_words])?;
        let nibble = |words: &[u32], line: usize, row: usize| (words[line * row_words + row / PACK] >> (4 * NIBBLE[row % PACK]) & 15) as u8;
        let packed = Packed {
            weight,
            scales: wanted.required("scales")?,
            group_size,
            groups: None,
            code: |row, col| nibble(&codes, col, row),
            zero: |row, group| nibble(&zeros, group, row),
        };
        packed.matrix(wanted).map(Some)
    }
}
