//! One thing that was found.

use serde::{Deserialize, Serialize};

use crate::card::Deviation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    /// It was not tried; the detail says why.
    Skipped,
}

/// What a section tells, in the order in which it found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// Something that can be right or wrong.
    Check {
        name: String,
        outcome: Outcome,
        /// Greatest error that was seen, and what it may be; absent where only equality counts.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<f32>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        tolerance: Option<f32>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        detail: Option<String>,
        seconds: f64,
    },
    /// A number.
    Measurement {
        name: String,
        value: f64,
        unit: String,
        /// The best that the card allows, in the same unit.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bound: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        detail: Option<String>,
    },
    /// What the run depends on.
    Fact { name: String, value: String },
    /// A table for people.
    Table { markdown: String },
    /// An object for programs.
    Object { name: String, value: serde_json::Value },
}

impl Finding {
    pub fn fact(name: &str, value: impl ToString) -> Self {
        Self::Fact { name: name.to_owned(), value: value.to_string() }
    }

    pub fn measurement(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self::Measurement { name: name.into(), value, unit: unit.to_owned(), bound: None, detail: None }
    }

    /// As [`Finding::measurement`], beside the best that the card allows.
    pub fn bounded(name: impl Into<String>, value: f64, unit: &str, bound: f64) -> Self {
        Self::Measurement { name: name.into(), value, unit: unit.to_owned(), bound: Some(bound), detail: None }
    }

    /// A check that passed where `result` is content.
    pub fn check(name: impl Into<String>, result: &anyhow::Result<()>, worst: Option<Deviation>, seconds: f64) -> Self {
        Self::Check {
            name: name.into(),
            outcome: if result.is_ok() { Outcome::Passed } else { Outcome::Failed },
            // JSON has no infinity.
            error: worst.map(|w| if w.error.is_finite() { w.error } else { f32::MAX }),
            tolerance: worst.map(|w| w.tolerance),
            detail: result.as_ref().err().map(|error| format!("{error:#}")),
            seconds,
        }
    }

    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Check { name: name.into(), outcome: Outcome::Skipped, error: None, tolerance: None, detail: Some(why.into()), seconds: 0.0 }
    }

    /// Whether something is wrong.
    pub fn failed(&self) -> bool {
        matches!(self, Self::Check { outcome: Outcome::Failed, .. })
    }
}
