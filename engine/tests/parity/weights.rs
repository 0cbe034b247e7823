//! Models without stored weights: these are a function of a tensor's name and an element's index, the same to the last bit here and in
//! engine/fixtures/architectures/make.py.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use half::bf16;
use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Shapes {
    norm_center: f32,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(Deserialize)]
struct Config {
    dtype: String,
}

/// The fixture's folder, with weights, for as long as the value lives.
pub struct Model(TempDir);

impl Model {
    pub fn new(name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures").join(name);
        let folder = tempfile::tempdir().unwrap();
        let copy = |file: &str| {
            let text = fs::read(from.join(file)).unwrap();
            fs::write(folder.path().join(file), &text).unwrap();
            text
        };
        let shapes: Shapes = serde_json::from_slice(&copy("reference.json")).unwrap();
        let config: Config = serde_json::from_slice(&copy("config.json")).unwrap();
        let dtype = if config.dtype == "bfloat16" { Dtype::BF16 } else { Dtype::F32 };
        let encoded = |name: &str, shape: &[usize]| -> Vec<u8> {
            let values = values(name, shape, shapes.norm_center).into_iter();
            match dtype {
                Dtype::BF16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            }
        };
        let data: Vec<_> = shapes.tensors.iter().map(|(name, shape)| (name, shape, encoded(name, shape))).collect();
        let views = data.iter().map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, (*shape).clone(), bytes).unwrap()));
        fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        Self(folder)
    }

    pub fn folder(&self) -> PathBuf {
        self.0.path().into()
    }
}

/// The tensor `name`: splitmix64 over FNV-1a of the name and the index, as a number in -1..1, scaled by kind.
fn values(name: &str, shape: &[usize], norm_center: f32) -> Vec<f32> {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let uniform = |i: u64| {
        let x = start.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let scaled = |u: f32| match shape {
        [_] if name.ends_with("norm.weight") => norm_center + u * 0.25,
        [_] => u * 0.25,
        _ if name.contains("embed_tokens") && norm_center == 0.0 => u * 0.125,
        _ if name.contains("embed") || name.starts_with("lm_head") => u * 0.5,
        [_, cols] => u * (2.5 / (*cols as f64).sqrt()) as f32,
        _ => unreachable!("tensors have one or two axes"),
    };
    (0..shape.iter().product::<usize>() as u64).map(|i| scaled(uniform(i))).collect()
}
