//! The model that experiments serve: the demo model, made as slow as a larger one, so that compute is what streams on good links share.
//!
//! Its feed-forward layers are widened by rows of zeros, which change no output: the text is the demo model's, at several times the work
//! for each token. As it is, the demo model makes tokens faster than a second core can send and read them one by one.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use anyhow::Context;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::files::write;

/// Rows of the widened layers; the demo model has 512.
const INTERMEDIATE_SIZE: usize = 4096;

/// Tokens of prompt and answer: streams must outlast a run. The weights know nothing of it.
pub(super) const CONTEXT: usize = 8192;

/// Writes the model's files into `folder`.
///
/// # Errors
/// When the demo model beside our sources cannot be read, or a file not be written.
pub(super) fn make(folder: &Path) -> anyhow::Result<()> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/demo-model");
    let read = |name: &str| std::fs::read(demo.join(name)).with_context(|| format!("cannot read the demo model's {name}"));
    let mut config: Value = serde_json::from_slice(&read("config.json")?)?;
    config["intermediate_size"] = json!(INTERMEDIATE_SIZE);
    config["max_position_embeddings"] = json!(CONTEXT);
    write(&folder.join("config.json"), config.to_string())?;
    for name in ["generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        write(&folder.join(name), read(name)?)?;
    }
    write(&folder.join("model.safetensors"), widen(&read("model.safetensors")?)?)
}

/// Type, shape, bytes.
type Tensor<'a> = (Dtype, Vec<usize>, Cow<'a, [u8]>);

fn widen(weights: &[u8]) -> anyhow::Result<Vec<u8>> {
    let tensors = SafeTensors::deserialize(weights)?;
    let mut wide: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in tensors.iter() {
        let (mut shape, mut data) = (tensor.shape().to_vec(), Cow::Borrowed(tensor.data()));
        if name.ends_with("gate_proj.weight") || name.ends_with("up_proj.weight") {
            let row_bytes = data.len() / shape[0];
            data.to_mut().resize(INTERMEDIATE_SIZE * row_bytes, 0);
            shape[0] = INTERMEDIATE_SIZE;
        } else if name.ends_with("down_proj.weight") {
            let row_bytes = data.len() / shape[0];
            let wide_row = row_bytes / shape[1] * INTERMEDIATE_SIZE;
            data = data.chunks(row_bytes).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, wide_row - row_bytes))).collect();
            shape[1] = INTERMEDIATE_SIZE;
        }
        wide.insert(name.to_owned(), (tensor.dtype(), shape, data));
    }
    let views: Result<Vec<_>, _> = wide
        .iter()
        .map(|(name, (dtype, shape, data))| Ok::<_, safetensors::SafeTensorError>((name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect();
    Ok(safetensors::serialize(views?, None)?)
}
