use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    path::{Component, Path},
};

use memmap2::{Advice, Mmap};
use serde::Deserialize;

use super::{
    WeightsError,
    header::{self, HeaderError, TensorInfo},
};

/// The tensors of a model, wherever they lie.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder, or what stands in its place, for messages.
    origin: String,
    files: Vec<WeightFile>,
    /// By tensor name: index into `files`, and the place in that file.
    tensors: HashMap<String, (usize, TensorInfo)>,
}

#[derive(Debug)]
struct WeightFile {
    name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct ShardIndex {
    /// By tensor name: the file that has it.
    weight_map: BTreeMap<String, String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Maps the weights of a Hugging Face folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// When a file is missing, truncated or malformed, or a shard lacks a tensor that the index promises.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let mut checkpoint = Self { origin: folder.display().to_string(), files: Vec::new(), tensors: HashMap::new() };
        if folder.join(INDEX).is_file() {
            checkpoint.add_shards(folder)?;
        } else if folder.join(SINGLE).exists() {
            checkpoint.add(map(&folder.join(SINGLE))?)?;
        } else if !folder.is_dir() {
            return Err(WeightsError::Io { path: folder.into(), reason: "it is not a folder".into() });
        } else {
            return Err(WeightsError::NoWeights { folder: folder.into() });
        }
        Ok(checkpoint)
    }

    /// A safetensors file that is part of the program. `name` stands for it in messages.
    ///
    /// # Errors
    /// When the bytes are no such file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, WeightsError> {
        let mut checkpoint = Self { origin: name.into(), files: Vec::new(), tensors: HashMap::new() };
        checkpoint.add(WeightFile { name: name.into(), bytes: Bytes::Static(bytes) })?;
        Ok(checkpoint)
    }

    pub fn contains(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// Bytes of all tensors as stored.
    pub fn num_bytes(&self) -> usize {
        self.tensors.values().map(|(_, info)| info.bytes.len()).sum()
    }

    /// Whether most of the bytes are float32.
    pub fn is_float32(&self) -> bool {
        let float32: usize = self.tensors.values().filter(|(_, info)| info.dtype == "F32").map(|(_, info)| info.bytes.len()).sum();
        float32 * 2 > self.num_bytes()
    }

    /// The tensor's file, description and bytes.
    pub(super) fn get(&self, tensor: &str) -> Result<(&str, &TensorInfo, &[u8]), WeightsError> {
        let Some((file, info)) = self.tensors.get(tensor) else {
            return Err(WeightsError::Missing { checkpoint: self.origin.clone(), tensor: tensor.into() });
        };
        let file = &self.files[*file];
        Ok((&file.name, info, &file.bytes.as_slice()[info.bytes.clone()]))
    }

    fn add_shards(&mut self, folder: &Path) -> Result<(), WeightsError> {
        let path = folder.join(INDEX);
        let name = path.display().to_string();
        let text = std::fs::read(&path).map_err(|e| WeightsError::Io { path, reason: e.to_string() })?;
        let fail = |reason: String| WeightsError::Index { file: name.clone(), reason };
        let index: ShardIndex = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
            // A name from outside must not lead out of the folder.
            if !matches!(Path::new(shard).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
                return Err(fail(format!("the shard name \"{shard}\" is not a plain file name")));
            }
            if !folder.join(shard).exists() {
                return Err(fail(format!("the shard {shard} that it lists is missing")));
            }
            self.add(map(&folder.join(shard))?)?;
        }
        match index.weight_map.iter().find(|(tensor, _)| !self.contains(tensor)) {
            Some((tensor, shard)) => Err(fail(format!("it places tensor \"{tensor}\" in {shard}, which lacks it"))),
            None => Ok(()),
        }
    }

    fn add(&mut self, file: WeightFile) -> Result<(), WeightsError> {
        let parsed = header::parse(file.bytes.as_slice()).map_err(|error| match error {
            HeaderError::File(reason) => WeightsError::File { file: file.name.clone(), reason },
            HeaderError::Tensor { tensor, reason } => WeightsError::Tensor { file: file.name.clone(), tensor, reason },
        })?;
        let number = self.files.len();
        self.tensors.extend(parsed.into_iter().map(|(name, info)| (name, (number, info))));
        self.files.push(file);
        Ok(())
    }
}

fn map(path: &Path) -> Result<WeightFile, WeightsError> {
    let fail = |e: std::io::Error| WeightsError::Io { path: path.into(), reason: e.to_string() };
    let file = File::open(path).map_err(fail)?;
    // SAFETY: the mapping is private and read-only. As with every program that maps its weights, changing the file in
    // place while the engine runs is the operator's fault; replacing it by rename is harmless.
    let mapped = unsafe { Mmap::map(&file) }.map_err(fail)?;
    // Only a hint: reading ahead saves most of the page faults of a cold start.
    let _ = mapped.advise(Advice::WillNeed);
    Ok(WeightFile { name: path.display().to_string(), bytes: Bytes::Mapped(mapped) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shard(names: &[&str]) -> Vec<u8> {
        let data = [0u8; 8];
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 2], &data).unwrap();
        safetensors::serialize(names.iter().map(|n| (*n, view())), None).unwrap()
    }

    fn open_error(write: impl Fn(&Path)) -> String {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        Checkpoint::open(folder.path()).unwrap_err().to_string().replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn opens_one_file_and_many() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SINGLE), shard(&["a", "b"])).unwrap();
        let one = Checkpoint::open(folder.path()).unwrap();
        assert!(one.contains("a") && one.contains("b") && !one.contains("c"));
        assert_eq!(one.num_bytes(), 16);
        assert_eq!(one.get("c").unwrap_err().to_string(), format!("the checkpoint {} has no tensor \"c\"", folder.path().display()));

        fs::write(folder.path().join("m-1.safetensors"), shard(&["a"])).unwrap();
        fs::write(folder.path().join("m-2.safetensors"), shard(&["b"])).unwrap();
        fs::write(folder.path().join(INDEX), r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#).unwrap();
        let two = Checkpoint::open(folder.path()).unwrap();
        assert!(two.get("b").unwrap().0.ends_with("m-2.safetensors"));
    }

    #[test]
    fn each_fault_is_one_sentence() {
        let index = |json: &'static str| move |dir: &Path| fs::write(dir.join(INDEX), json).unwrap();
        assert_eq!(open_error(|_| ()), "DIR has neither model.safetensors nor model.safetensors.index.json");
        assert_eq!(
            open_error(index("{}")),
            "DIR/model.safetensors.index.json is not a usable index of shards: missing field `weight_map` at line 1 column 2"
        );
        assert!(open_error(index(r#"{"weight_map":{"a":"m.safetensors"}}"#)).ends_with("the shard m.safetensors that it lists is missing"));
        assert!(
            open_error(index(r#"{"weight_map":{"a":"../m.safetensors"}}"#))
                .ends_with("the shard name \"../m.safetensors\" is not a plain file name")
        );
        assert!(
            open_error(|dir| {
                index(r#"{"weight_map":{"a":"m.safetensors"}}"#)(dir);
                fs::write(dir.join("m.safetensors"), shard(&["b"])).unwrap();
            })
            .ends_with("it places tensor \"a\" in m.safetensors, which lacks it")
        );
        assert_eq!(
            open_error(|dir| fs::write(dir.join(SINGLE), &shard(&["a"])[..shard(&["a"]).len() - 2]).unwrap()),
            "DIR/model.safetensors: tensor \"a\" ends at byte 8 of the data, but the file has only 6: it is truncated"
        );
        assert!(open_error(|dir| fs::write(dir.join(SINGLE), b"").unwrap()).contains("DIR/model.safetensors"));
        assert!(open_error(|dir| fs::create_dir(dir.join(SINGLE)).unwrap()).starts_with("DIR/model.safetensors cannot be read"));
        let error = Checkpoint::open(Path::new("/nonexistent/model")).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/model cannot be read: it is not a folder");
    }
}
