//! `quantization_config` of `config.json`: which format a folder is in. What this engine cannot honour is refused by file and field.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Format, by_method};
use crate::weights::WeightsError;

/// The object, with typed access to its fields.
pub(super) struct Declaration {
    file: String,
    fields: Map<String, Value>,
}

/// The format that the file's `quantization_config` declares; `None` where there is no such file or field.
pub(in crate::weights) fn declared(config: &Path) -> Result<Option<Box<dyn Format>>, WeightsError> {
    match std::fs::read(config) {
        Ok(text) => declared_in(config.display().to_string(), &text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(WeightsError::Io { path: config.into(), reason: e.to_string() }),
    }
}

/// The same of the file's text; `file` stands for it in messages.
pub(in crate::weights) fn declared_in(file: String, text: &[u8]) -> Result<Option<Box<dyn Format>>, WeightsError> {
    #[derive(Deserialize)]
    struct Config {
        quantization_config: Option<Map<String, Value>>,
        /// Where compressed-tensors wrote it at first.
        compression_config: Option<Map<String, Value>>,
    }
    let parsed: Config = serde_json::from_slice(text).map_err(|e| WeightsError::Declaration {
        file: file.clone(),
        field: "quantization_config".into(),
        reason: format!("is malformed: {e}"),
    })?;
    let Some(fields) = parsed.quantization_config.or(parsed.compression_config) else {
        return Ok(None);
    };
    let declaration = Declaration { file, fields };
    let method: String = declaration.required("quant_method")?;
    match by_method().into_iter().find(|(name, _)| *name == method) {
        Some((_, declare)) => declare(&declaration).map(Some),
        None => {
            let known = by_method().map(|(name, _)| name).join(", ");
            Err(declaration.error("quant_method", format!("is \"{method}\"; known are {known}")))
        }
    }
}

impl Declaration {
    pub(super) fn error(&self, field: &str, reason: impl Into<String>) -> WeightsError {
        WeightsError::Declaration { file: self.file.clone(), field: format!("quantization_config.{field}"), reason: reason.into() }
    }

    /// `None` where the field is absent or null. `field` may lead inwards: "weights.num_bits".
    pub(super) fn optional<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, WeightsError> {
        let mut parts = field.split('.');
        let first = parts.next().and_then(|part| self.fields.get(part));
        match parts.fold(first, |value, part| value.and_then(|value| value.get(part))) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|e| self.error(field, format!("is malformed: {e}"))),
        }
    }

    pub(super) fn required<T: DeserializeOwned>(&self, field: &str) -> Result<T, WeightsError> {
        self.optional(field)?.ok_or_else(|| self.error(field, "is missing"))
    }

    /// # Errors
    /// Unless the field is `only`.
    pub(super) fn expect_bits(&self, field: &str, only: u64) -> Result<(), WeightsError> {
        match self.required::<u64>(field)? {
            bits if bits == only => Ok(()),
            bits => Err(self.error(field, format!("is {bits}; only {only} is supported"))),
        }
    }

    /// Columns that share a scale; `None` (-1 in the file) for all.
    pub(super) fn group_size(&self, field: &str) -> Result<Option<usize>, WeightsError> {
        match self.required::<i64>(field)? {
            -1 => Ok(None),
            n if n > 0 && n % 32 == 0 && n <= 1 << 20 => Ok(Some(n as usize)),
            n => Err(self.error(field, format!("is {n}; -1 and multiples of 32 are supported"))),
        }
    }
}
