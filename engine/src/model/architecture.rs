//! What an architecture's file says beside its layer: names of its tensors, and how its config differs from the common form.

use super::{
    ModelConfig,
    fields::{ConfigError, Fields},
};

/// Most architectures take [`Architecture::COMMON`] and change what they must.
pub(super) struct Architecture {
    pub(super) names: Names,
    /// Names of fields that mean the same as ours: (theirs, ours).
    pub(super) aliases: &'static [(&'static str, &'static str)],
    /// A JSON object of the values that fields have where a config leaves them out.
    pub(super) defaults: &'static str,
    /// Reads what only this architecture has, after the fields that all have.
    pub(super) configure: fn(&Fields, &mut ModelConfig) -> Result<(), ConfigError>,
}

impl Architecture {
    pub(super) const COMMON: Self = Self { names: Names::COMMON, aliases: &[], defaults: "{}", configure: |_, _| Ok(()) };
}

/// Names of tensors, without their ".weight".
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// What checkpoints put before the names of the stack, be it nothing; the first under which there is an embedding is taken.
    pub(super) roots: &'static [&'static str],
    pub(super) embedding: &'static str,
    pub(super) layers: &'static str,
    pub(super) final_norm: &'static str,
    /// In the whole checkpoint; the first that there is is taken.
    pub(super) heads: &'static [&'static str],
    /// Of a layer with experts: where they and their router are, and the matrices of one: gate, up and down.
    pub(super) experts: &'static str,
    pub(super) expert: [&'static str; 3],
}

impl Names {
    pub(super) const COMMON: Self = Self {
        roots: &["model", "", "language_model.model", "model.language_model"],
        embedding: "embed_tokens",
        layers: "layers",
        final_norm: "norm",
        heads: &["lm_head", "language_model.lm_head"],
        experts: "mlp",
        expert: ["gate_proj", "up_proj", "down_proj"],
    };
}
