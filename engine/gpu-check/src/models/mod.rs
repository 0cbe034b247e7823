//! Models that are made on the spot: weights are a function of a tensor's name and an element's index, so that nothing is downloaded and
//! everybody makes the same.

mod checkpoint;
mod family;
mod tokenizer;
mod values;

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::Value;

pub use checkpoint::Stored;
pub use family::{FAMILIES, Family};
use values::Values;

use crate::step::Shape;

/// Writes a model's folder: config, weights and a tokenizer that has a token for each id.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, config: &Value, tensors: &[(String, Vec<usize>)], stored: Stored, norm_center: f32) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
    };
    put("config.json", config.to_string())?;
    let vocabulary = config["vocab_size"].as_u64().context("config.json has no vocab_size")?;
    put("tokenizer.json", tokenizer::json(vocabulary as usize).to_string())?;
    checkpoint::write(&folder.join("model.safetensors"), tensors, stored, Values { norm_center })
}

/// Writes a model of this shape in bf16.
///
/// # Errors
/// As [`write`].
pub fn write_shape(folder: &Path, shape: &Shape) -> anyhow::Result<()> {
    write(folder, &shape.config(), &shape.tensors(), Stored::BF16, 1.0)
}
