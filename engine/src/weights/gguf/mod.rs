//! GGUF: one file, or several, with everything that a model needs. Tensors keep their blocks and get Hugging Face's names; metadata
//! become the JSON files that a Hugging Face folder would have.

mod config;
mod ggml;
mod header;
mod metadata;
mod names;
mod pre_tokenizer;
mod reader;
mod sentence_piece;
mod split;
#[cfg(test)]
mod tests;
mod tokenizer;
mod value;

use std::path::{Path, PathBuf};

use super::{
    Checkpoint, WeightsError,
    checkpoint::{Arrangement, Stored},
    file::WeightFile,
    safetensors,
};
use config::TensorFacts;
use header::{GgufTensor, Header};
use metadata::Metadata;
use names::{Meaning, Naming};
pub(super) use split::parts;

/// More experts than any model has; each becomes an entry.
const MAX_EXPERTS: usize = 4096;
/// More rotary frequencies than any head has.
const MAX_ROPE_FACTORS: usize = 4096;

/// What a GGUF file holds.
#[derive(Debug)]
pub struct Gguf {
    /// The file, for messages about the texts below.
    pub file: String,
    pub checkpoint: Checkpoint,
    /// As `config.json`.
    pub config: Vec<u8>,
    /// As `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// As `tokenizer_config.json`.
    pub tokenizer_config: Vec<u8>,
}

impl Gguf {
    /// Maps a file, and where it is one of several (`-00001-of-00003.gguf`), the others beside it.
    ///
    /// # Errors
    /// When a file is missing, truncated or malformed, or the model is of a kind that this engine does not have.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let files = split::paths(path)?.iter().map(|path| WeightFile::map(path)).collect::<Result<Vec<_>, _>>()?;
        Self::from_files(files)
    }

    /// The one GGUF model of a folder that has no other weights.
    ///
    /// # Errors
    /// When there are several, or the folder cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Option<PathBuf>, WeightsError> {
        if safetensors::are_in(folder) {
            return Ok(None);
        }
        let fail = |e: std::io::Error| WeightsError::Io { path: folder.into(), reason: e.to_string() };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".gguf") && split::is_first(name) {
                found.push(path);
            }
        }
        found.sort();
        match &found[..] {
            [_, _, ..] => {
                let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                Err(WeightsError::Io { path: folder.into(), reason: format!("it has several models; name one of {}", names.join(", ")) })
            }
            _ => Ok(found.pop()),
        }
    }

    /// A file in memory, which `name` stands for in messages.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::from_files(vec![WeightFile::owned(name, bytes)])
    }

    fn from_files(files: Vec<WeightFile>) -> Result<Self, WeightsError> {
        let headers = files.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = headers.first() else {
            return Err(WeightsError::Gguf { file: String::new(), reason: "names no file".into() });
        };
        split::expect_whole(&files, &headers)?;
        let metadata = Metadata::new(&files[0].name, &first.metadata)?;
        let naming = config::naming(&metadata)?;
        let head_dim = config::head_dim(&metadata)? as usize;
        let tensors_of = |(file, header): (&'_ WeightFile, &'_ Header<'_>)| -> Result<Vec<(String, Stored)>, WeightsError> {
            let entries = header.tensors.iter().map(|(name, tensor)| stored(file, naming, head_dim, name, tensor));
            Ok(entries.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let facts = facts(&files, &headers)?;
        let config = config::config(&metadata, &facts)?;
        let (tokenizer, tokenizer_config) = tokenizer::tokenizer(&metadata)?;
        let stored = files.iter().zip(&headers).map(tensors_of).collect::<Result<Vec<_>, _>>()?;
        let name = files[0].name.clone();
        drop(headers);
        let mut checkpoint = Checkpoint::new(name.clone());
        for (file, tensors) in files.into_iter().zip(stored) {
            checkpoint.add(file, tensors);
        }
        let bytes = |value: &serde_json::Value| value.to_string().into_bytes();
        Ok(Self {
            file: name,
            checkpoint,
            config: bytes(&config),
            tokenizer: bytes(&tokenizer),
            tokenizer_config: bytes(&tokenizer_config),
        })
    }
}

fn parse(file: &WeightFile) -> Result<Header<'_>, WeightsError> {
    header::parse(file.bytes()).map_err(|reason| WeightsError::Gguf { file: file.name.clone(), reason })
}

fn facts(files: &[WeightFile], headers: &[Header<'_>]) -> Result<TensorFacts, WeightsError> {
    let mut facts = TensorFacts { vocab_size: 0, has_head: false, has_attention_bias: false, has_mlp_bias: false, rope_factors: None };
    let tensors =
        files.iter().zip(headers).flat_map(|(file, header)| header.tensors.iter().map(move |(name, tensor)| (file, *name, tensor)));
    for (file, name, tensor) in tensors {
        match name {
            "token_embd.weight" => facts.vocab_size = tensor.shape.first().map_or(0, |&rows| rows as u64),
            "output.weight" => facts.has_head = true,
            "blk.0.attn_q.bias" => facts.has_attention_bias = true,
            "blk.0.ffn_gate.bias" => facts.has_mlp_bias = true,
            "rope_freqs.weight" => {
                if tensor.kind.name() != "F32" || tensor.bytes.len() > 4 * MAX_ROPE_FACTORS {
                    let reason = format!("has type {} and shape {:?}, which are no rotary factors", tensor.kind, tensor.shape);
                    return Err(WeightsError::Tensor { file: file.name.clone(), tensor: name.into(), reason });
                }
                let bytes = file.bytes()[tensor.bytes.clone()].chunks_exact(4);
                facts.rope_factors = Some(bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect());
            }
            _ => {}
        }
    }
    match facts.vocab_size {
        0 => Err(WeightsError::Missing { checkpoint: files[0].name.clone(), tensor: "token_embd.weight".into() }),
        _ => Ok(facts),
    }
}

/// The entries that one tensor of the file becomes: none, one, or one for each expert.
fn stored(
    file: &WeightFile,
    naming: Naming,
    head_dim: usize,
    name: &str,
    tensor: &GgufTensor,
) -> Result<Vec<(String, Stored)>, WeightsError> {
    let fail = |reason: String| WeightsError::Tensor { file: file.name.clone(), tensor: name.into(), reason };
    let entry = |shape: &[usize], bytes, arrangement| Stored {
        file: 0,
        dtype: tensor.kind.name().into(),
        shape: shape.to_vec(),
        bytes,
        arrangement,
    };
    match names::meaning(naming, head_dim, name) {
        None => Ok(Vec::new()),
        Some(Meaning::Whole { name, arrangement }) => {
            let rows = tensor.shape.first().copied().unwrap_or(0);
            if matches!(arrangement, Arrangement::RotaryPairs { .. })
                && (head_dim < 2 || !head_dim.is_multiple_of(2) || !rows.is_multiple_of(head_dim))
            {
                return Err(fail(format!("has {rows} rows, which are no whole heads of {head_dim}")));
            }
            Ok(vec![(name, entry(&tensor.shape, tensor.bytes.clone(), arrangement))])
        }
        Some(Meaning::Experts { before, after }) => {
            let &[experts, ref shape @ ..] = &tensor.shape[..] else { return Err(fail("has no axis of experts".into())) };
            if experts == 0 || experts > MAX_EXPERTS || shape.len() != 2 || tensor.bytes.is_empty() {
                return Err(fail(format!("has shape {:?} where [experts, rows, cols] are expected", tensor.shape)));
            }
            let (start, size) = (tensor.bytes.start, tensor.bytes.len() / experts);
            let place = |expert: usize| start + expert * size..start + (expert + 1) * size;
            Ok((0..experts).map(|e| (format!("{before}{e}{after}"), entry(shape, place(e), Arrangement::AsIs))).collect())
        }
    }
}
