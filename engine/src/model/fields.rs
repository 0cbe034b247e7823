//! Typed access to a JSON object that came from outside: every complaint names the file and the field.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{} cannot be read: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
    #[error("{file} is not a JSON object: {reason}")]
    Json { file: String, reason: String },
    #[error("{file}: field \"{field}\" {reason}")]
    Field { file: String, field: String, reason: String },
    #[error("{file}: architecture \"{found}\" is not supported; known are {known}")]
    Architecture { file: String, found: String, known: String },
}

/// Far above every model there is, and low enough that products of two sizes do not overflow.
const MAX_COUNT: u64 = 1 << 28;

/// A JSON object and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    file: String,
    /// "rope_parameters." inside that object.
    prefix: String,
    object: Map<String, Value>,
}

impl Fields {
    pub(super) fn open(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(|e| ConfigError::Io { path: path.into(), reason: e.to_string() })?;
        Self::parse(&path.display().to_string(), &text)
    }

    pub(super) fn parse(file: &str, json: &[u8]) -> Result<Self, ConfigError> {
        let object = serde_json::from_slice(json).map_err(|e| ConfigError::Json { file: file.into(), reason: e.to_string() })?;
        Ok(Self { file: file.into(), prefix: String::new(), object })
    }

    /// The same under the names that we use (`aliases` of (theirs, ours)), with `defaults`, a JSON object, in the place of absent fields.
    pub(super) fn normalized(mut self, aliases: &[(&str, &str)], defaults: &str) -> Result<Self, ConfigError> {
        for (theirs, ours) in aliases {
            if let (Some(value), false) = (self.object.get(*theirs), self.object.contains_key(*ours)) {
                self.object.insert((*ours).into(), value.clone());
            }
        }
        for (field, value) in Self::parse("the architecture's defaults", defaults.as_bytes())?.object {
            self.object.entry(field).or_insert(value);
        }
        Ok(self)
    }

    /// The object `inner`, which has our fields of its own for those that it leaves out.
    pub(super) fn inner(&self, inner: &str) -> Result<Option<Self>, ConfigError> {
        let Some(mut inner) = self.object(inner)? else { return Ok(None) };
        for (field, value) in &self.object {
            if !inner.object.contains_key(field) {
                inner.object.insert(field.clone(), value.clone());
            }
        }
        Ok(Some(inner))
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn error(&self, field: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Field { file: self.file.clone(), field: format!("{}{field}", self.prefix), reason: reason.into() }
    }

    /// `None` where the field is absent or null.
    pub(super) fn optional<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, ConfigError> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|e| self.error(field, format!("is malformed: {e}"))),
        }
    }

    pub(super) fn required<T: DeserializeOwned>(&self, field: &str) -> Result<T, ConfigError> {
        self.optional(field)?.ok_or_else(|| self.error(field, "is missing"))
    }

    /// A size: at least 1.
    pub(super) fn count(&self, field: &str) -> Result<usize, ConfigError> {
        self.optional_count(field)?.ok_or_else(|| self.error(field, "is missing"))
    }

    pub(super) fn optional_count(&self, field: &str) -> Result<Option<usize>, ConfigError> {
        match self.optional::<u64>(field)? {
            Some(n) if n == 0 || n > MAX_COUNT => Err(self.error(field, format!("is {n}, which is not a possible size"))),
            n => Ok(n.map(|n| n as usize)),
        }
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, field: &str) -> Result<f64, ConfigError> {
        let value = self.required::<f64>(field)?;
        if value > 0.0 && value.is_finite() { Ok(value) } else { Err(self.error(field, format!("is {value} but must be above 0"))) }
    }

    /// `None` where the field is absent or null.
    pub(super) fn optional_positive(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        match self.optional::<f64>(field)? {
            None => Ok(None),
            Some(_) => self.positive(field).map(Some),
        }
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool, ConfigError> {
        Ok(self.optional(field)?.unwrap_or(false))
    }

    /// `None` where the object is absent or null.
    pub(super) fn object(&self, field: &str) -> Result<Option<Self>, ConfigError> {
        let object = self.optional::<Map<String, Value>>(field)?;
        Ok(object.map(|object| Self { file: self.file.clone(), prefix: format!("{}{field}.", self.prefix), object }))
    }

    /// Token ids given as one number, a list or null.
    pub(super) fn token_ids(&self, field: &str) -> Result<Vec<u32>, ConfigError> {
        match self.object.get(field) {
            Some(Value::Array(_)) => self.required(field),
            _ => Ok(self.optional(field)?.into_iter().collect()),
        }
    }
}
