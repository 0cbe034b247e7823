//! What was found, as one JSON file for programs and one Markdown file for people. Both are whole at any time: a run that is cut short
//! leaves what it had found so far.

mod file;
mod finding;
mod markdown;

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

pub use file::write_atomically;
pub use finding::{Finding, Outcome};

/// Names of the two files.
pub const JSON: &str = "gpu-check.json";
pub const MARKDOWN: &str = "gpu-check.md";

/// How a section ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Waiting,
    Running,
    Passed,
    Failed,
    TimedOut,
    /// There was nothing to do, or not what it takes.
    Skipped,
}

/// One part of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    pub name: String,
    pub status: Status,
    /// Why it did not pass.
    pub reason: Option<String>,
    pub seconds: f64,
    pub findings: Vec<Finding>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub version: String,
    /// Seconds since 1970.
    pub started: u64,
    pub seconds: f64,
    /// Whether all sections have been run.
    pub complete: bool,
    /// Whether the device is emulated and sizes are tiny: then no number says anything of speed.
    pub rehearsal: bool,
    pub sections: Vec<Section>,
}

impl Report {
    pub fn new(names: &[&str], rehearsal: bool) -> Self {
        let section =
            |name: &&str| Section { name: (*name).to_owned(), status: Status::Waiting, reason: None, seconds: 0.0, findings: Vec::new() };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default(),
            seconds: 0.0,
            complete: false,
            rehearsal,
            sections: names.iter().map(section).collect(),
        }
    }

    /// Whether nothing failed so far.
    pub fn passed(&self) -> bool {
        self.sections.iter().all(|section| !matches!(section.status, Status::Failed | Status::TimedOut))
    }

    /// Writes both files into `folder`.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let put = |name: &str, text: &[u8]| {
            let path: PathBuf = folder.join(name);
            write_atomically(&path, text).with_context(|| format!("{} cannot be written", path.display()))
        };
        put(JSON, &serde_json::to_vec_pretty(self)?)?;
        put(MARKDOWN, markdown::page(self).as_bytes())
    }
}
