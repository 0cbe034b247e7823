//! Folders of safetensors files: one file, or shards with an index.

mod header;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use serde::Deserialize;

use super::{WeightsError, checkpoint::Stored, file::WeightFile};
use header::HeaderError;

/// A file and the tensors that it holds, by name.
pub(super) type File = (WeightFile, Vec<(String, Stored)>);

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct ShardIndex {
    /// By tensor name: the file that has it.
    weight_map: BTreeMap<String, String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

pub(super) fn are_in(folder: &Path) -> bool {
    folder.join(INDEX).exists() || folder.join(SINGLE).exists()
}

/// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
pub(super) fn open(folder: &Path) -> Result<Vec<File>, WeightsError> {
    if folder.join(INDEX).is_file() {
        shards(folder)
    } else if folder.join(SINGLE).exists() {
        Ok(vec![open_file(&folder.join(SINGLE))?])
    } else if !folder.is_dir() {
        Err(WeightsError::Io { path: folder.into(), reason: "it is not a folder".into() })
    } else {
        Err(WeightsError::NoWeights { folder: folder.into() })
    }
}

/// What the header of one file says.
pub(super) fn tensors(file: &WeightFile) -> Result<Vec<(String, Stored)>, WeightsError> {
    header::parse(file.bytes()).map_err(|error| match error {
        HeaderError::File(reason) => WeightsError::File { file: file.name.clone(), reason },
        HeaderError::Tensor { tensor, reason } => WeightsError::Tensor { file: file.name.clone(), tensor, reason },
    })
}

fn open_file(path: &Path) -> Result<File, WeightsError> {
    let file = WeightFile::map(path)?;
    let tensors = tensors(&file)?;
    Ok((file, tensors))
}

fn shards(folder: &Path) -> Result<Vec<File>, WeightsError> {
    let path = folder.join(INDEX);
    let name = path.display().to_string();
    let text = std::fs::read(&path).map_err(|e| WeightsError::Io { path, reason: e.to_string() })?;
    let fail = |reason: String| WeightsError::Index { file: name.clone(), reason };
    let index: ShardIndex = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
    let mut files = Vec::new();
    for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
        // A name from outside must not lead out of the folder.
        if !matches!(Path::new(shard).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
            return Err(fail(format!("the shard name \"{shard}\" is not a plain file name")));
        }
        if !folder.join(shard).exists() {
            return Err(fail(format!("the shard {shard} that it lists is missing")));
        }
        files.push(open_file(&folder.join(shard))?);
    }
    let found: BTreeSet<&String> = files.iter().flat_map(|(_, tensors)| tensors).map(|(name, _)| name).collect();
    match index.weight_map.iter().find(|(tensor, _)| !found.contains(tensor)) {
        Some((tensor, shard)) => Err(fail(format!("it places tensor \"{tensor}\" in {shard}, which lacks it"))),
        None => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::weights::Checkpoint;

    fn shard(names: &[&str]) -> Vec<u8> {
        let data = [0u8; 8];
        let view = || ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, vec![1, 2], &data).unwrap();
        ::safetensors::serialize(names.iter().map(|n| (*n, view())), None).unwrap()
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
        assert!(two.get("b").unwrap().file.ends_with("m-2.safetensors"));
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
