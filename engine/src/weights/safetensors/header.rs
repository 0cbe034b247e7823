//! The header of a safetensors file: 8 bytes of length, that much JSON, then the tensors' bytes.
//!
//! Nothing in it is believed: a header that is accepted describes tensors that lie inside the file and have the size that their
//! shape and type say.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Stored;
use crate::weights::checkpoint::Arrangement;

#[derive(Debug, PartialEq)]
pub(super) enum HeaderError {
    File(String),
    Tensor { tensor: String, reason: String },
}

/// The format's own limit on the length of the JSON.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const LENGTH_BYTES: usize = 8;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads the header of `file`, the whole file's bytes. Memory used is in proportion to the header that is really there.
pub(super) fn parse(file: &[u8]) -> Result<Vec<(String, Stored)>, HeaderError> {
    let (json, data_start) = json(file)?;
    let header: Map<String, Value> =
        serde_json::from_slice(json).map_err(|e| HeaderError::File(format!("its header is not a JSON object ({e})")))?;
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, value)| tensor(name, value, data_start, file.len())).collect()
}

fn json(file: &[u8]) -> Result<(&[u8], usize), HeaderError> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(HeaderError::File(format!("it is truncated: {} bytes are less than a header", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(HeaderError::File(format!("it claims a header of {length} bytes, more than the format allows")));
    }
    match rest.get(..length as usize) {
        Some(json) => Ok((json, LENGTH_BYTES + length as usize)),
        None => Err(HeaderError::File(format!("it is truncated: the header has {length} bytes, the file only {}", file.len()))),
    }
}

fn tensor(name: String, value: Value, data_start: usize, file_bytes: usize) -> Result<(String, Stored), HeaderError> {
    match tensor_info(value, data_start, file_bytes) {
        Ok(info) => Ok((name, info)),
        Err(reason) => Err(HeaderError::Tensor { tensor: name, reason }),
    }
}

fn tensor_info(value: Value, data_start: usize, file_bytes: usize) -> Result<Stored, String> {
    let entry = Entry::deserialize(value).map_err(|e| format!("has a malformed header entry ({e})"))?;
    let [start, end] = entry.data_offsets;
    if start > end {
        return Err(format!("ends at byte {end}, before its start at {start}"));
    }
    let data_bytes = (file_bytes - data_start) as u64;
    if end > data_bytes {
        return Err(format!("ends at byte {end} of the data, but the file has only {data_bytes}: it is truncated"));
    }
    if let Some(bits) = element_bits(&entry.dtype) {
        let elements = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        if elements.and_then(|n| n.checked_mul(bits)) != Some((end - start) * 8) {
            return Err(format!("has {} bytes, which is not the size of {} {:?}", end - start, entry.dtype, entry.shape));
        }
    }
    Ok(Stored {
        file: 0,
        arrangement: Arrangement::AsIs,
        dtype: entry.dtype.into(),
        // Lossless: on a 32-bit machine too, a shape that fits the bytes of a mapped file fits usize, unless one extent is 0.
        shape: entry.shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect(),
        bytes: data_start + start as usize..data_start + end as usize,
    })
}

/// `None` for types that this engine does not know; such tensors are refused only when a model asks for them.
fn element_bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#;

    #[test]
    fn reads_what_is_there() {
        let tensors = parse(&file(GOOD, 16)).unwrap();
        let start = LENGTH_BYTES + GOOD.len();
        assert_eq!(
            tensors[0],
            (
                "a".into(),
                Stored { file: 0, dtype: "BF16".into(), shape: vec![2, 3], bytes: start..start + 12, arrangement: Arrangement::AsIs }
            )
        );
        assert_eq!(tensors[1].1.bytes, start + 12..start + 16);
    }

    #[test]
    fn says_what_is_wrong() {
        let message = |bytes: &[u8]| format!("{:?}", parse(bytes).unwrap_err());
        assert!(message(b"").contains("0 bytes are less than a header"));
        assert!(message(&u64::MAX.to_le_bytes()).contains("more than the format allows"));
        assert!(message(&file(GOOD, 15)).contains("truncated"));
        assert!(message(&file(GOOD, 16)[..40]).contains("truncated"));
        assert!(message(&file("[]", 0)).contains("not a JSON object"));
        assert!(message(&file(&GOOD.replace("[2,3]", "[2,4]"), 16)).contains("not the size"));
        assert!(message(&file(&GOOD.replace("[2,3]", "[4294967296,4294967296,4294967296]"), 16)).contains("not the size"));
        assert!(message(&file(&GOOD.replace("[2,3]", "[-2,3]"), 16)).contains("malformed"));
        assert!(message(&file(&GOOD.replace("[0,12]", "[12,0]"), 16)).contains("before its start"));
        assert!(message(&file(&GOOD.replace("[0,12]", "[18446744073709551615,12]"), 16)).contains("before its start"));
        assert!(message(&file(&GOOD.replace("\"shape\"", "\"form\""), 16)).contains("shape"));
    }

    proptest! {
        #[test]
        fn mutated_files_never_panic(edits in prop::collection::vec((0usize..400, any::<u8>()), 0..6), cut in 0usize..400, trim in any::<bool>()) {
            let mut bytes = file(GOOD, 16);
            for (at, value) in edits {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if trim { bytes.truncate(cut); }
            if let Ok(tensors) = parse(&bytes) {
                for (_, info) in tensors {
                    prop_assert!(bytes.get(info.bytes).is_some());
                }
            }
        }

        #[test]
        fn any_offsets_and_shapes_stay_inside_the_file(start: u64, end: u64, small in 0u64..20, shape in prop::collection::vec(any::<u64>(), 0..4)) {
            for offsets in [[start, end], [0, small], [small, end]] {
                let json = serde_json::json!({"t": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).to_string();
                let bytes = file(&json, 16);
                if let Ok(tensors) = parse(&bytes) {
                    prop_assert!(bytes.get(tensors[0].1.bytes.clone()).is_some());
                }
            }
        }
    }
}
