//! A safetensors file, written by all threads at once: 16 GB must not keep a card waiting.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context, anyhow};
use half::bf16;
use serde_json::{Map, json};

use super::values::Values;

/// The type of all tensors of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    BF16,
    F32,
}

impl Stored {
    fn bytes(self) -> usize {
        match self {
            Self::BF16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Elements that a thread makes at a time.
const CHUNK: usize = 1 << 21;

pub(super) fn write(path: &Path, tensors: &[(String, Vec<usize>)], stored: Stored, values: Values) -> anyhow::Result<()> {
    let mut header = Map::new();
    let (mut chunks, mut offset) = (Vec::new(), 0);
    for (index, (name, shape)) in tensors.iter().enumerate() {
        let elements: usize = shape.iter().product();
        let end = offset + elements * stored.bytes();
        let dtype = if stored == Stored::BF16 { "BF16" } else { "F32" };
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}));
        chunks
            .extend((0..elements).step_by(CHUNK).map(|first| (index, first, CHUNK.min(elements - first), offset + first * stored.bytes())));
        offset = end;
    }
    let mut head = serde_json::to_vec(&header)?;
    head.resize(head.len().next_multiple_of(8), b' ');
    let file = File::create(path).with_context(|| format!("{} cannot be made", path.display()))?;
    let start = 8 + head.len();
    let full = || format!("{}: {} bytes cannot be written", path.display(), start + offset);
    file.set_len((start + offset) as u64).with_context(full)?;
    file.write_all_at(&(head.len() as u64).to_le_bytes(), 0).with_context(full)?;
    file.write_all_at(&head, 8).with_context(full)?;

    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        let mut bytes = Vec::new();
        while let Some(&(index, first, count, at)) = chunks.get(next.fetch_add(1, Relaxed)) {
            let (name, shape) = &tensors[index];
            let tensor = values.tensor(name, shape);
            let elements = (first as u64..).take(count).map(|i| tensor.at(i));
            bytes.clear();
            match stored {
                Stored::BF16 => bytes.extend(elements.flat_map(|v| bf16::from_f32(v).to_le_bytes())),
                Stored::F32 => bytes.extend(elements.flat_map(f32::to_le_bytes)),
            }
            if let Err(error) = file.write_all_at(&bytes, (start + at) as u64) {
                next.store(chunks.len(), Relaxed);
                *failure.lock().expect("nobody panics with it") = Some(error);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(chunks.len());
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    match failure.into_inner().map_err(|_| anyhow!("a thread panicked"))? {
        Some(error) => Err(error).with_context(full),
        None => Ok(()),
    }
}
