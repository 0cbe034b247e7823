//! FP8 (e4m3): `weight` of type F8_E4M3 beside its scales, for blocks (`weight_scale_inv`, as DeepSeek and Qwen publish them) or for
//! rows or the whole matrix (`weight_scale`, as compressed-tensors writes them). Values times scales are the weights.

use super::{Format, Wanted, declared::Declaration, plain};
use crate::weights::{Matrix, WeightsError, loader::cut_bytes};

#[derive(Debug)]
struct Fp8 {
    /// Rows and columns that share a scale; `None` where the scales' shape tells, a row or everything.
    block: Option<[usize; 2]>,
}

pub(super) fn declare(declaration: &Declaration) -> Result<Box<dyn Format>, WeightsError> {
    if let Some(format) = declaration.optional::<String>("fmt")?.filter(|format| format != "e4m3") {
        return Err(declaration.error("fmt", format!("is \"{format}\"; only \"e4m3\" is supported")));
    }
    Ok(Box::new(Fp8 { block: block(declaration, "weight_block_size")? }))
}

/// As vLLM's compressor writes it: one group of settings for all linear layers.
pub(super) fn declare_compressed(declaration: &Declaration) -> Result<Box<dyn Format>, WeightsError> {
    let groups: serde_json::Map<_, _> = declaration.required("config_groups")?;
    let [name] = &groups.keys().collect::<Vec<_>>()[..] else {
        return Err(declaration.error("config_groups", format!("has {} groups; one is supported", groups.len())));
    };
    let field = |field: &str| format!("config_groups.{name}.weights.{field}");
    let kind: String = declaration.required(&field("type"))?;
    if kind != "float" {
        return Err(declaration.error(&field("type"), format!("is \"{kind}\"; only \"float\" is supported")));
    }
    declaration.expect_bits(&field("num_bits"), 8)?;
    match declaration.required::<String>(&field("strategy"))?.as_str() {
        "tensor" | "channel" => Ok(Box::new(Fp8 { block: None })),
        "block" => match block(declaration, &field("block_structure"))? {
            None => Err(declaration.error(&field("block_structure"), "is missing")),
            block => Ok(Box::new(Fp8 { block })),
        },
        other => Err(declaration.error(&field("strategy"), format!("is \"{other}\"; known are tensor, channel and block"))),
    }
}

fn block(declaration: &Declaration, field: &str) -> Result<Option<[usize; 2]>, WeightsError> {
    match declaration.optional::<[usize; 2]>(field)? {
        Some([0, _] | [_, 0]) => Err(declaration.error(field, "has no extent")),
        block => Ok(block),
    }
}

impl Format for Fp8 {
    fn matrix<'a>(&self, wanted: &Wanted<'a>) -> Result<Option<Matrix<'a>>, WeightsError> {
        let Some(tensor) = wanted.checkpoint.find(&wanted.name).filter(|tensor| tensor.dtype == "F8_E4M3") else {
            return Ok(None);
        };
        tensor.expect_shape(&wanted.shape)?;
        let [rows, cols] = wanted.shape;
        let scales = match wanted.sibling("weight_scale_inv") {
            Some(scales) => scales,
            None => wanted.required("weight_scale")?,
        };
        let [block_rows, block_cols] = match self.block {
            Some(block) => block,
            None if scales.bytes.len() > 4 || rows == 1 => [1, cols],
            None => wanted.shape,
        };
        let grid = [rows.div_ceil(block_rows), cols.div_ceil(block_cols)];
        let values = plain::values(&scales)?;
        if values.len() != grid[0] * grid[1] {
            let found = scales.shape;
            return Err(
                scales.error(format!("has shape {found:?} where {rows} x {cols} in blocks of {block_rows} x {block_cols} need {grid:?}"))
            );
        }
        let (row_range, col_range) = wanted.ranges(1, &tensor)?;
        for (range, block) in [(&row_range, block_rows), (&col_range, block_cols)] {
            let lies_in_one = range.start / block == range.end.saturating_sub(1) / block;
            if !lies_in_one && !range.start.is_multiple_of(block) {
                return Err(tensor.error(format!("cannot be cut into {} parts of {}: scales are for {block}", wanted.size, range.len())));
            }
        }
        // A part within one block is a block of its own.
        let scale_block = [block_rows.min(row_range.len()).max(1), block_cols.min(col_range.len()).max(1)];
        let block_range = |range: &std::ops::Range<usize>, block: usize| range.start / block..range.end.div_ceil(block);
        let block_rows = block_range(&row_range, block_rows);
        let block_cols = block_range(&col_range, block_cols);
        let scales =
            block_rows.flat_map(|row| &values[row * grid[1] + block_cols.start..row * grid[1] + block_cols.end]).copied().collect();
        let shape = [row_range.len(), col_range.len()];
        Ok(Some(Matrix::Fp8 { shape, bytes: cut_bytes(tensor.bytes, cols, row_range, col_range), scales, scale_block }))
    }
}
