//! Typed access to a file's metadata: every complaint names the file and the key.

use std::collections::HashMap;

use super::value::{Array, Kind, Value};
use crate::weights::WeightsError;

/// Architecture-specific keys are asked for without their prefix: "context_length" for "llama.context_length".
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    file: &'a str,
    values: &'a HashMap<&'a str, Value<'a>>,
    architecture: &'a str,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(file: &'a str, values: &'a HashMap<&'a str, Value<'a>>) -> Result<Self, WeightsError> {
        let mut metadata = Self { file, values, architecture: "" };
        metadata.architecture = metadata.required("general.architecture", Value::as_str, "a string")?;
        Ok(metadata)
    }

    /// "llama".
    pub(super) fn architecture(&self) -> &'a str {
        self.architecture
    }

    pub(super) fn error(&self, key: &str, reason: impl Into<String>) -> WeightsError {
        WeightsError::Metadata { file: self.file.into(), key: key.into(), reason: reason.into() }
    }

    fn get<T>(&self, key: &str, convert: fn(Value<'a>) -> Option<T>, what: &str) -> Result<Option<T>, WeightsError> {
        let Some(&value) = self.values.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.error(key, format!("is not {what}")))
    }

    fn required<T>(&self, key: &str, convert: fn(Value<'a>) -> Option<T>, what: &str) -> Result<T, WeightsError> {
        self.get(key, convert, what)?.ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&'a str>, WeightsError> {
        self.get(key, Value::as_str, "a string of UTF-8")
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.get(key, |value| if let Value::Bool(b) = value { Some(b) } else { None }, "a truth value")
    }

    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>, WeightsError> {
        self.get(key, |value| value.as_u64().and_then(|n| u32::try_from(n).ok()), "a whole number of 32 bits")
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<Array<'a>>, WeightsError> {
        self.get(key, |value| if let Value::Array(array) = value { Some(array) } else { None }, "an array")
    }

    pub(super) fn required_array(&self, key: &str) -> Result<Array<'a>, WeightsError> {
        self.array(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn own_key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A size; where a file has one for every layer, they must be the same.
    pub(super) fn own_count(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        let key = self.own_key(key);
        let Some(Value::Array(array)) = self.values.get(key.as_str()) else {
            return self.get(&key, Value::as_u64, "a whole number");
        };
        let mut values = array.values().map(Value::as_u64);
        let first = values.next().flatten().ok_or_else(|| self.error(&key, "is not a list of whole numbers"))?;
        if values.all(|value| value == Some(first)) {
            return Ok(Some(first));
        }
        Err(self.error(&key, "differs between layers, which is not supported"))
    }

    pub(super) fn own_required_count(&self, key: &str) -> Result<u64, WeightsError> {
        self.own_count(key)?.ok_or_else(|| self.error(&self.own_key(key), "is missing"))
    }

    pub(super) fn own_f64(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        self.get(&self.own_key(key), Value::as_f64, "a number")
    }

    pub(super) fn own_str(&self, key: &str) -> Result<Option<&'a str>, WeightsError> {
        self.str(&self.own_key(key))
    }

    /// # Errors
    /// When the array holds something else than strings of UTF-8.
    pub(super) fn strings(&self, key: &str, array: Array<'a>) -> Result<Vec<&'a str>, WeightsError> {
        if array.kind != Some(Kind::String) {
            return Err(self.error(key, "is not a list of strings"));
        }
        let strings = array.values().map(Value::as_str);
        strings.enumerate().map(|(i, s)| s.ok_or_else(|| self.error(key, format!("is not UTF-8 in entry {i}")))).collect()
    }
}
