//! A small model of each architecture, as `engine/fixtures/architectures` describes it.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::{Stored, write};

pub struct Family {
    pub name: &'static str,
    config: &'static str,
    reference: &'static str,
}

macro_rules! families {
    ($($name:literal)*) => {
        &[$(Family {
            name: $name,
            config: include_str!(concat!("../../../fixtures/architectures/", $name, "/config.json")),
            reference: include_str!(concat!("../../../fixtures/architectures/", $name, "/reference.json")),
        }),*]
    };
}

/// Those that generate.
pub const FAMILIES: &[Family] = families![
    "yarn" "mistral" "mixtral" "qwen2" "qwen3-moe" "qwen3-moe-raw" "gemma2" "gemma3" "gpt-neox" "gpt-neox-serial"
];

#[derive(Deserialize)]
struct Reference {
    norm_center: f32,
    bf16: Deviation,
    tensors: BTreeMap<String, Vec<usize>>,
}

/// How far transformers' own bf16 arithmetic is from its f32.
#[derive(Deserialize)]
struct Deviation {
    worst: f32,
}

impl Family {
    fn reference(&self) -> anyhow::Result<Reference> {
        serde_json::from_str(self.reference).with_context(|| format!("{}: reference.json", self.name))
    }

    /// Greatest difference of a log-probability that transformers has between bf16 and f32.
    ///
    /// # Errors
    /// When the fixture is malformed.
    pub fn bf16_deviation(&self) -> anyhow::Result<f32> {
        Ok(self.reference()?.bf16.worst)
    }

    /// Writes its folder. Weights are f32 or bf16, as its config says.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let Reference { norm_center, tensors, .. } = self.reference()?;
        let config: Value = serde_json::from_str(self.config).with_context(|| format!("{}: config.json", self.name))?;
        let stored = if config["dtype"] == "bfloat16" { Stored::BF16 } else { Stored::F32 };
        write(folder, &config, &tensors.into_iter().collect::<Vec<_>>(), stored, norm_center)
    }
}
