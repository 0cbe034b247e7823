//! Clients that others wrote, from PyPI, in a virtual environment that `cargo xtask test` prepares.

use std::path::PathBuf;

/// Names the virtual environment's folder.
pub const ENVIRONMENT: &str = "TOKENFLOW_PYTHON";

/// The environment's interpreter, or why there is none.
///
/// # Errors
/// When `cargo xtask test` did not prepare one.
pub fn interpreter() -> Result<PathBuf, String> {
    let folder = std::env::var_os(ENVIRONMENT).ok_or_else(|| format!("{ENVIRONMENT} is not set; `cargo xtask test` prepares it"))?;
    let python = PathBuf::from(folder).join("bin/python");
    if python.is_file() { Ok(python) } else { Err(format!("{} is missing", python.display())) }
}
