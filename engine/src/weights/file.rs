//! A file of weights: mapped, or part of the program. Whoever slices it has checked the bounds before.

use std::{fs::File, ops::Range, path::Path};

use memmap2::{Advice, Mmap, UncheckedAdvice};

use super::WeightsError;

#[derive(Debug)]
pub(super) struct WeightFile {
    /// For messages.
    pub(super) name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl WeightFile {
    pub(super) fn map(path: &Path) -> Result<Self, WeightsError> {
        let fail = |e: std::io::Error| WeightsError::Io { path: path.into(), reason: e.to_string() };
        let file = File::open(path).map_err(fail)?;
        // SAFETY: the mapping is private and read-only. As with every program that maps its weights, changing the file in
        // place while the engine runs is the operator's fault; replacing it by rename is harmless.
        let mapped = unsafe { Mmap::map(&file) }.map_err(fail)?;
        // Only a hint: reading ahead saves most of the page faults of a cold start.
        let _ = mapped.advise(Advice::WillNeed);
        Ok(Self { name: path.display().to_string(), bytes: Bytes::Mapped(mapped) })
    }

    pub(super) fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        Self { name: name.into(), bytes: Bytes::Static(bytes) }
    }

    pub(super) fn owned(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes: Bytes::Owned(bytes) }
    }

    /// Takes these bytes out of the process's memory; the page cache may keep them. They are read again when they are touched.
    pub(super) fn release(&self, bytes: Range<usize>) {
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: the mapping is read-only and of a file, so that its pages come back with the same contents. A kernel that refuses keeps them.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
