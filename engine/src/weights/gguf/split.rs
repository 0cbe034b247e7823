//! Models split into several files: `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::header::Header;
use crate::weights::{WeightsError, file::WeightFile};

/// More files than any model is split into.
const MAX_FILES: u32 = 1000;

/// The file, or all of those that it is one of, in order.
pub(super) fn paths(path: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(vec![path.to_owned()]) };
    let paths: Vec<PathBuf> = parts(name).iter().map(|name| path.with_file_name(name)).collect();
    match paths.iter().find(|path| !path.exists()) {
        None => Ok(paths),
        Some(missing) => {
            Err(WeightsError::Io { path: missing.clone(), reason: format!("it is missing; the model has {} files", paths.len()) })
        }
    }
}

/// Names of all files of the model that the file named so is, or is one of.
pub(in crate::weights) fn parts(name: &str) -> Vec<String> {
    match part_of(name) {
        None => vec![name.to_owned()],
        Some((base, count)) => (1..=count).map(|number| format!("{base}-{number:05}-of-{count:05}.gguf")).collect(),
    }
}

/// Whether a file stands for its model: it is whole, or the first of its parts.
pub(super) fn is_first(name: &str) -> bool {
    part_of(name).is_none() || name.contains("-00001-of-")
}

/// The name before the numbers, and how many parts there are.
fn part_of(name: &str) -> Option<(&str, u32)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let number_of = |digits: &str| (digits.len() == 5).then(|| digits.parse::<u32>().ok()).flatten();
    let (number, count) = (number_of(number)?, number_of(count)?);
    ((1..=count).contains(&number) && count <= MAX_FILES).then_some((base, count))
}

/// # Errors
/// When the files are not, in this order, all that the first one speaks of.
pub(super) fn expect_whole(files: &[WeightFile], headers: &[Header<'_>]) -> Result<(), WeightsError> {
    for (number, (file, header)) in files.iter().zip(headers).enumerate() {
        let value = |key: &str| header.metadata.get(key).and_then(|value| value.as_u64());
        let fail = |key: &str, reason: String| Err(WeightsError::Metadata { file: file.name.clone(), key: key.into(), reason });
        let count = value("split.count").unwrap_or(1).max(1);
        if count != files.len() as u64 {
            return fail(
                "split.count",
                format!("is {count}, but there are {} files; parts are named NAME-00001-of-{count:05}.gguf", files.len()),
            );
        }
        if files.len() > 1 && value("split.no") != Some(number as u64) {
            return fail("split.no", format!("is not {number}, the file's place"));
        }
    }
    Ok(())
}
