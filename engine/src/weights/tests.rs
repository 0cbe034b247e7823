//! Quantised folders, written here as AutoAWQ, GPTQModel and compressed-tensors write them, give the values that were packed.

use std::path::Path;

use half::f16;
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView as Stored};
use serde_json::{Value, json};

use super::{Checkpoint, Cut, Loader, Matrix};
use crate::backend::MatrixView;

const NAME: &str = "model.layers.0.mlp.up_proj.weight";
const BASE: &str = "model.layers.0.mlp.up_proj";

/// A tensor's name, type, shape and bytes.
type Entry = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn write(folder: &Path, quantization: Value, entries: &[Entry]) {
    let names: Vec<String> = entries.iter().map(|e| format!("{BASE}.{}", e.0)).collect();
    let views = names.iter().zip(entries).map(|(name, (_, dtype, shape, data))| (name, Stored::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), json!({"quantization_config": quantization}).to_string()).unwrap();
}

fn open(quantization: Value, entries: &[Entry]) -> Result<Checkpoint, String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), quantization, entries);
    Checkpoint::open(folder.path()).map_err(|e| e.to_string().replace(&folder.path().display().to_string(), "DIR"))
}

/// Every value, as [`MatrixView`] defines them.
fn values(matrix: &Matrix<'_>) -> Vec<f32> {
    let view = matrix.view();
    view.check().unwrap();
    let [rows, cols] = view.shape();
    let value = |r: usize, c: usize| match view {
        MatrixView::Int4 { group_size, codes, scales, zeros, groups, .. } => {
            let g = groups.map_or(c / group_size, |groups| groups[c] as usize);
            let at = r * cols.div_ceil(group_size) + g;
            let code = codes[(r * cols + c) / 2] >> (4 * (c % 2)) & 15;
            let scale = f16::from_le_bytes([scales[2 * at], scales[2 * at + 1]]).to_f32();
            (f32::from(code) - f32::from(zeros[at])) * scale
        }
        MatrixView::Fp8 { bytes, scales, scale_block: [block_rows, block_cols], .. } => {
            e4m3(bytes[r * cols + c]) * scales[r / block_rows * cols.div_ceil(block_cols) + c / block_cols]
        }
        _ => panic!("{} was not packed here", view.encoding()),
    };
    (0..rows * cols).map(|i| value(i / cols, i % cols)).collect()
}

/// OCP 8-bit floating point, E4M3: bias 7, no infinity.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = if exponent == 0 { mantissa / 8.0 * 2f32.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

fn le_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

/// 4-bit codes, zeros and scales from a seed, with the matrix that they stand for: `[in, out]`, as both packers lay it out.
struct Int4 {
    rows: usize,
    cols: usize,
    groups: Vec<usize>,
    codes: Vec<u32>,
    zeros: Vec<u32>,
    scales: Vec<f32>,
}

impl Int4 {
    fn random(rows: usize, cols: usize, group_size: usize, shuffled: bool, mut seed: u64) -> Self {
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let num_groups = cols / group_size;
        let groups = (0..cols).map(|c| if shuffled { (c * 7 + c / 3) % num_groups } else { c / group_size }).collect();
        Self {
            rows,
            cols,
            groups,
            codes: (0..rows * cols).map(|_| random(16) as u32).collect(),
            zeros: (0..rows * num_groups).map(|_| random(16) as u32).collect(),
            scales: (0..rows * num_groups).map(|_| f16::from_f32(0.01 + random(100) as f32 / 500.0).to_f32()).collect(),
        }
    }

    /// `[rows, cols]`; `offset` is added to stored zeros.
    fn values(&self, offset: f32) -> Vec<f32> {
        let value = |r: usize, c: usize| {
            let at = self.groups[c] * self.rows + r;
            (self.codes[c * self.rows + r] as f32 - (self.zeros[at] as f32 + offset)) * self.scales[at]
        };
        (0..self.rows * self.cols).map(|i| value(i / self.cols, i % self.cols)).collect()
    }

    /// Eight values of a line to a word, `order[i]` in nibble i.
    fn pack_lines(values: &[u32], order: [usize; 8]) -> Vec<u8> {
        let word = |chunk: &[u32]| (0..8).fold(0u32, |word, i| word | chunk[order[i]] << (4 * i));
        le_words(&values.chunks_exact(8).map(word).collect::<Vec<_>>())
    }

    fn awq(&self) -> Vec<Entry> {
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        let groups = self.zeros.len() / self.rows;
        vec![
            ("qweight", Dtype::I32, vec![self.cols, self.rows / 8], Self::pack_lines(&self.codes, order)),
            ("qzeros", Dtype::I32, vec![groups, self.rows / 8], Self::pack_lines(&self.zeros, order)),
            ("scales", Dtype::F16, vec![groups, self.rows], f16s(&self.scales)),
        ]
    }

    fn gptq(&self) -> Vec<Entry> {
        let order = [0, 1, 2, 3, 4, 5, 6, 7];
        let groups = self.zeros.len() / self.rows;
        let word = |c: usize, r: usize| (0..8).fold(0u32, |word, i| word | self.codes[(c * 8 + i) * self.rows + r] << (4 * i));
        let words: Vec<u32> = (0..self.cols / 8).flat_map(|c| (0..self.rows).map(move |r| word(c, r))).collect();
        let g_idx: Vec<u32> = self.groups.iter().map(|&g| g as u32).collect();
        vec![
            ("qweight", Dtype::I32, vec![self.cols / 8, self.rows], le_words(&words)),
            ("qzeros", Dtype::I32, vec![groups, self.rows / 8], Self::pack_lines(&self.zeros, order)),
            ("scales", Dtype::F16, vec![groups, self.rows], f16s(&self.scales)),
            ("g_idx", Dtype::I32, vec![self.cols], le_words(&g_idx)),
        ]
    }
}

/// Values of all ranks' parts, put together again.
fn assembled(checkpoint: &Checkpoint, [rows, cols]: [usize; 2], cut: Cut, size: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> =
        (0..size).map(|rank| values(&Loader::for_rank(checkpoint, rank, size).matrix(NAME, [rows, cols], cut).unwrap())).collect();
    match cut {
        Cut::Cols => {
            let part = cols / size;
            (0..rows).flat_map(|r| parts.iter().flat_map(move |p| p[r * part..(r + 1) * part].to_vec())).collect()
        }
        _ => parts.concat(),
    }
}

fn awq(group_size: i64) -> Value {
    json!({"quant_method": "awq", "bits": 4, "group_size": group_size, "version": "gemm", "zero_point": true})
}

fn gptq(group_size: i64, format: &str) -> Value {
    json!({"quant_method": "gptq", "bits": 4, "group_size": group_size, "desc_act": true, "checkpoint_format": format})
}

fn per_block() -> Value {
    json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [32, 64]})
}

fn compressed(strategy: &str) -> Value {
    let weights = json!({"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": true, "dynamic": false});
    json!({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn awq_gives_what_was_packed(row_words in 1usize..12, num_groups in 1usize..4, wide: bool, seed: u64) {
        let (rows, group_size) = (row_words * 16, if wide { 64 } else { 32 });
        let cols = num_groups * group_size * 2;
        let packed = Int4::random(rows, cols, group_size, false, seed);
        let checkpoint = open(awq(group_size as i64), &packed.awq()).unwrap();
        for (cut, size) in [(Cut::None, 1), (Cut::Rows, 2), (Cut::Cols, 2)] {
            prop_assert_eq!(assembled(&checkpoint, [rows, cols], cut, size), packed.values(0.0));
        }
    }

    #[test]
    fn gptq_gives_what_was_packed(row_words in 1usize..12, num_groups in 1usize..4, shuffled: bool, v2: bool, seed: u64) {
        let (rows, group_size) = (row_words * 16, 32);
        let cols = num_groups * group_size * 2;
        let packed = Int4::random(rows, cols, group_size, shuffled, seed);
        let checkpoint = open(gptq(group_size as i64, if v2 { "gptq_v2" } else { "gptq" }), &packed.gptq()).unwrap();
        let expected = packed.values(if v2 { 0.0 } else { 1.0 });
        prop_assert_eq!(assembled(&checkpoint, [rows, cols], Cut::Rows, 2), expected.clone());
        if shuffled && num_groups > 0 {
            let error = Loader::for_rank(&checkpoint, 0, 2).matrix(NAME, [rows, cols], Cut::Cols).unwrap_err().to_string();
            prop_assert!(error.ends_with("cannot be cut by columns: activation order spreads every group over all of them"), "{error}");
        } else {
            prop_assert_eq!(assembled(&checkpoint, [rows, cols], Cut::Cols, 2), expected);
        }
    }

    #[test]
    fn fp8_gives_what_was_packed(strategy in 0usize..3, bytes in prop::collection::vec(any::<u8>().prop_filter("not a number", |b| b & 0x7f != 0x7f), 64 * 128)) {
        let (rows, cols) = (64, 128);
        let (config, name, grid, block) = match strategy {
            0 => (per_block(), "weight_scale_inv", vec![2, 2], [32, 64]),
            1 => (compressed("channel"), "weight_scale", vec![64, 1], [1, 128]),
            _ => (compressed("tensor"), "weight_scale", vec![1], [64, 128]),
        };
        let scales: Vec<f32> = (0..grid.iter().product()).map(|i: usize| 0.5 + i as f32 / 7.0).collect();
        let stored = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let checkpoint = open(config, &[("weight", Dtype::F8_E4M3, vec![rows, cols], bytes.clone()), (name, Dtype::F32, grid, stored)]).unwrap();
        let expected: Vec<f32> = (0..rows * cols).map(|i| e4m3(bytes[i]) * scales[i / cols / block[0] * (cols / block[1]) + i % cols / block[1]]).collect();
        for (cut, size) in [(Cut::None, 1), (Cut::Rows, 2), (Cut::Cols, 2), (Cut::Rows, 4), (Cut::Cols, 4)] {
            prop_assert_eq!(&assembled(&checkpoint, [rows, cols], cut, size), &expected, "{:?} {}", cut, size);
        }
    }
}

#[test]
fn groups_of_all_columns() {
    let packed = Int4::random(16, 64, 64, false, 5);
    let checkpoint = open(gptq(-1, "gptq_v2"), &packed.gptq()).unwrap();
    assert_eq!(assembled(&checkpoint, [16, 64], Cut::None, 1), packed.values(0.0));
    assert_eq!(assembled(&checkpoint, [16, 64], Cut::Cols, 2), packed.values(0.0));
    assert!(checkpoint.contains(NAME) && !checkpoint.contains("model.norm.weight"));
}

#[test]
fn refusals_name_the_file_and_the_field() {
    let packed = Int4::random(16, 64, 32, false, 5);
    let declared = |quantization: Value| open(quantization, &packed.gptq()).unwrap_err();
    let mut eight = gptq(32, "gptq");
    eight["bits"] = json!(8);
    assert_eq!(declared(eight), "DIR/config.json: field \"quantization_config.bits\" is 8; only 4 is supported");
    assert_eq!(
        declared(json!({"quant_method": "bitsandbytes"})),
        "DIR/config.json: field \"quantization_config.quant_method\" is \"bitsandbytes\"; known are awq, gptq, fp8, compressed-tensors"
    );
    assert_eq!(declared(json!({})), "DIR/config.json: field \"quantization_config.quant_method\" is missing");
    assert!(declared(gptq(32, "marlin")).contains("checkpoint_format\" is \"marlin\""));
    assert!(declared(gptq(0, "gptq")).contains("group_size\" is 0"));
    assert!(declared(json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"})).contains("version"));
    let mut int8 = compressed("tensor");
    int8["config_groups"]["group_0"]["weights"]["type"] = json!("int");
    assert_eq!(
        declared(int8),
        "DIR/config.json: field \"quantization_config.config_groups.group_0.weights.type\" is \"int\"; only \"float\" is supported"
    );
    assert!(declared(json!([])).contains("field \"quantization_config\" is malformed"));

    let loaded = |quantization: Value, entries: &[Entry], shape: [usize; 2], cut: Cut, size: usize| {
        let checkpoint = open(quantization, entries).unwrap();
        let error = Loader::for_rank(&checkpoint, 0, size).matrix(NAME, shape, cut).unwrap_err().to_string();
        error.split_once(": ").unwrap().1.to_owned()
    };
    let tensor = |name: &str| format!("tensor \"{BASE}.{name}\" ");
    assert_eq!(
        loaded(gptq(32, "gptq"), &packed.gptq(), [16, 128], Cut::None, 1),
        tensor("qweight") + "has shape [8, 16] where the config asks for [16, 16]"
    );
    assert_eq!(
        loaded(gptq(32, "gptq"), &packed.gptq(), [16, 64], Cut::Cols, 4),
        tensor("qweight") + "cannot be cut into 4 parts of 16 columns: they come in groups of 32"
    );
    let mut wrong = packed.gptq();
    wrong[3].3[0] = 9;
    assert_eq!(loaded(gptq(32, "gptq"), &wrong, [16, 64], Cut::None, 1), tensor("g_idx") + "names group 9 of 2");
    wrong = packed.gptq();
    wrong[2].3[1] = 0x7c;
    assert!(loaded(gptq(32, "gptq"), &wrong, [16, 64], Cut::None, 1).ends_with("has a scale that is infinite or not a number"));
    let no_scales = Checkpoint::open(Path::new("/nonexistent")).map(|_| ()).unwrap_err().to_string();
    assert!(no_scales.starts_with("/nonexistent"));
    let missing = open(gptq(32, "gptq"), &packed.gptq()[..2]).unwrap();
    let missing = Loader::new(&missing).matrix(NAME, [16, 64], Cut::None).unwrap_err().to_string();
    assert!(missing.ends_with(&format!("has no tensor \"{BASE}.scales\"")), "{missing}");
    let plain_fp8 = |config| loaded(config, &[("weight", Dtype::F8_E4M3, vec![2, 2], vec![0; 4])], [2, 2], Cut::None, 1);
    assert!(plain_fp8(Value::Null).contains("no quantization_config"));
    let eight = [("weight", Dtype::F8_E4M3, vec![64, 64], vec![0; 4096]), ("weight_scale_inv", Dtype::F32, vec![1, 1], vec![0; 4])];
    assert_eq!(
        loaded(per_block(), &eight, [64, 64], Cut::None, 1),
        tensor("weight_scale_inv") + "has shape [1, 1] where 64 x 64 in blocks of 32 x 64 need [2, 1]"
    );
}

/// What fuzzing begins with is whole, so that it gets behind the first checks.
#[test]
fn the_fuzzers_folders_are_ones_that_load() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/folder");
    for name in ["awq", "gptq", "fp8_blocks", "compressed"] {
        let seed = std::fs::read(seeds.join(name)).unwrap();
        let zero = seed.iter().position(|&byte| byte == 0).unwrap();
        let checkpoint = Checkpoint::from_bytes_with_config(name, seed[zero + 1..].to_vec(), &seed[..zero]).unwrap();
        let matrix = Loader::new(&checkpoint).matrix("a.weight", [32, 64], Cut::None).unwrap();
        matrix.view().check().unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}
