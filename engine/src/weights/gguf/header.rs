//! What a GGUF file says of itself: metadata and where its tensors lie.
//!
//! Nothing in it is believed: a header that is accepted describes tensors that lie inside the file and have the size that their
//! shape and type say.

use std::{collections::HashMap, ops::Range};

use super::{
    ggml::GgmlType,
    reader::{Reader, Reason},
    value::Value,
};

const MAGIC: &[u8] = b"GGUF";
/// 1 had 32-bit lengths and was given up within weeks.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_DIMENSIONS: u32 = 4;

#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) metadata: HashMap<&'a str, Value<'a>>,
    pub(super) tensors: Vec<(&'a str, GgufTensor)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct GgufTensor {
    pub(super) kind: GgmlType,
    /// Slowest axis first, as everywhere else; the file has them the other way round.
    pub(super) shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(super) bytes: Range<usize>,
}

/// Reads the header of `file`, the whole file's bytes. Memory used is in proportion to the entries that are really there.
pub(super) fn parse(file: &[u8]) -> Result<Header<'_>, Reason> {
    let mut reader = Reader::new(file);
    if !file.starts_with(MAGIC) {
        return Err("is not a GGUF file: it does not begin with \"GGUF\"".into());
    }
    reader.bytes(MAGIC.len() as u64)?;
    let version = reader.u32()?;
    if VERSIONS.contains(&version.swap_bytes()) {
        return Err("is a big-endian GGUF file, which is not supported".into());
    }
    if !VERSIONS.contains(&version) {
        return Err(format!("has GGUF version {version}; 2 and 3 are supported"));
    }
    let (num_tensors, num_values) = (reader.u64()?, reader.u64()?);
    let mut metadata = HashMap::new();
    for _ in 0..num_values {
        let key = reader.name()?;
        let value = reader.value()?;
        if metadata.insert(key, value).is_some() {
            return Err(format!("has the key \"{key}\" twice"));
        }
    }
    let mut entries = Vec::new();
    for _ in 0..num_tensors {
        entries.push(entry(&mut reader)?);
    }
    let data_start = aligned(reader.position(), &metadata)?;
    let tensors = entries.into_iter().map(|entry| tensor(entry, data_start, file.len())).collect::<Result<Vec<_>, _>>()?;
    let total = tensors.iter().try_fold(0usize, |total, (_, tensor)| total.checked_add(tensor.bytes.len()));
    if total.is_none_or(|total| total > file.len()) {
        return Err("has tensors that overlap".into());
    }
    Ok(Header { metadata, tensors })
}

struct Entry<'a> {
    name: &'a str,
    kind: u32,
    shape: Vec<u64>,
    offset: u64,
}

fn entry<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, Reason> {
    let name = reader.name()?;
    let num_dimensions = reader.u32()?;
    if num_dimensions > MAX_DIMENSIONS {
        return Err(format!("has a tensor \"{name}\" of {num_dimensions} dimensions"));
    }
    let mut shape = (0..num_dimensions).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    Ok(Entry { name, shape, kind: reader.u32()?, offset: reader.u64()? })
}

fn aligned(position: usize, metadata: &HashMap<&str, Value<'_>>) -> Result<u64, Reason> {
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(value) => value
            .as_u64()
            .filter(|a| a.is_power_of_two() && *a <= 1 << 20)
            .ok_or("has a \"general.alignment\" that is not a small power of two")?,
    };
    Ok((position as u64).next_multiple_of(alignment))
}

fn tensor(entry: Entry<'_>, data_start: u64, file_bytes: usize) -> Result<(&str, GgufTensor), Reason> {
    let Entry { name, kind, shape, offset } = entry;
    let Some(kind) = GgmlType::from_code(kind) else {
        return Err(format!("has a tensor \"{name}\" of the unknown type {kind}"));
    };
    let row = shape.last().copied().unwrap_or(1);
    let rows = shape[..shape.len().saturating_sub(1)].iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    if !row.is_multiple_of(kind.block_len() as u64) {
        return Err(format!("has a tensor \"{name}\" with rows of {row} elements, which are no whole blocks of {kind}"));
    }
    let bytes = rows.and_then(|n| n.checked_mul(row / kind.block_len() as u64)).and_then(|n| n.checked_mul(kind.block_bytes() as u64));
    let start = data_start.checked_add(offset);
    let end = start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_bytes as u64 => {
            // Lossless: an extent that fits a mapped file's bytes fits usize, unless another one is 0.
            let shape = shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
            Ok((name, GgufTensor { kind, shape, bytes: start as usize..end as usize }))
        }
        _ => {
            Err(format!("is truncated: tensor \"{name}\", {kind} {shape:?} at offset {offset}, does not lie within its {file_bytes} bytes"))
        }
    }
}
