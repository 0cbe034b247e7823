//! A folder for models of many gigabytes: in memory where there is room, gone when the run is.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::TempDir;

const PREFIX: &str = "tokenflow-gpu-check-";
/// Of an 8B model, and some more.
const WANTED_BYTES: u64 = 20 << 30;

/// # Errors
/// When no folder can be made anywhere.
pub fn folder() -> anyhow::Result<TempDir> {
    let places: Vec<PathBuf> = vec!["/dev/shm".into(), std::env::temp_dir()];
    places.iter().for_each(|place| remove_stale(place));
    let roomy = places.iter().find(|place| free_bytes(place) >= WANTED_BYTES);
    let place = roomy.cloned().unwrap_or_else(std::env::temp_dir);
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(&place).with_context(|| format!("no folder can be made in {}", place.display()))
}

/// Bytes that a file may still take there.
fn free_bytes(place: &Path) -> u64 {
    let Ok(path) = CString::new(place.as_os_str().as_bytes()) else { return 0 };
    // SAFETY: plain numbers, which the call fills.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path that ends in NUL, and room for the answer.
    let known = unsafe { libc::statvfs(path.as_ptr(), &mut stat) } == 0;
    if known { stat.f_bavail * stat.f_frsize } else { 0 }
}

/// What runs that were killed have left.
fn remove_stale(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
