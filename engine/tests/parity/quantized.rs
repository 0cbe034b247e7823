//! Folders whose linear layers are packed as AWQ, GPTQ and FP8 are published say what the weights say that they stand for.

use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::driver::{Case, Cut, EXACT, ISAS, TOLERANCE, drive, executor, folder, reference};
use tokenflow_engine::backend::cpu::{CpuConfig, Isa};

const FIXTURE: &str = "qwen3";
const GROUP: usize = 32;

/// A tensor: name, type, shape, bytes.
type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

#[derive(Clone, Copy, Debug)]
enum Method {
    Awq,
    Gptq {
        shuffled: bool,
    },
    /// One scale for 32 x 64 values, as DeepSeek and Qwen publish.
    Fp8Blocks,
    /// One scale for each row, as compressed-tensors writes.
    Fp8Rows,
}

impl Method {
    fn declaration(self) -> Value {
        match self {
            Self::Awq => json!({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": true}),
            Self::Gptq { shuffled } => json!({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": shuffled}),
            Self::Fp8Blocks => json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [32, 64]}),
            Self::Fp8Rows => json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}}),
        }
    }

    /// Tensors in place of `base.weight` `[rows, cols]`, and the values that they stand for.
    fn pack(self, base: &str, rows: usize, cols: usize, values: &[f32]) -> (Vec<Entry>, Vec<f32>) {
        match self {
            Self::Awq => Int4::new(rows, cols, values, false).awq(base),
            Self::Gptq { shuffled } => Int4::new(rows, cols, values, shuffled).gptq(base),
            Self::Fp8Blocks => fp8(base, rows, cols, values, [32, 64], "weight_scale_inv"),
            Self::Fp8Rows => fp8(base, rows, cols, values, [1, cols], "weight_scale"),
        }
    }
}

/// Codes and zeros of 4 bits by column first, as both packers lay them out.
struct Int4 {
    rows: usize,
    cols: usize,
    /// Of each column.
    groups: Vec<usize>,
    codes: Vec<u32>,
    zeros: Vec<u32>,
    scales: Vec<f32>,
}

impl Int4 {
    fn new(rows: usize, cols: usize, values: &[f32], shuffled: bool) -> Self {
        let num_groups = cols / GROUP;
        let groups: Vec<usize> = (0..cols).map(|c| if shuffled { (c * 5 + c / 7) % num_groups } else { c / GROUP }).collect();
        let mut int4 = Self { rows, cols, groups, codes: vec![0; rows * cols], zeros: Vec::new(), scales: Vec::new() };
        for g in 0..num_groups {
            for r in 0..rows {
                let of_group = || (0..cols).filter(|&c| int4.groups[c] == g).map(|c| values[r * cols + c]);
                let (low, high) = of_group().fold((0f32, 0f32), |(low, high), v| (low.min(v), high.max(v)));
                let scale = f16::from_f32((high - low).max(1e-4) / 15.0).to_f32();
                int4.scales.push(scale);
                // The first version of GPTQ's format cannot store a zero of 0.
                int4.zeros.push((-low / scale).round().clamp(1.0, 15.0) as u32);
            }
        }
        for i in 0..rows * cols {
            let (c, r) = (i / rows, i % rows);
            let at = int4.groups[c] * rows + r;
            int4.codes[i] = (values[r * cols + c] / int4.scales[at] + int4.zeros[at] as f32).round().clamp(0.0, 15.0) as u32;
        }
        int4
    }

    fn values(&self) -> Vec<f32> {
        let value = |r: usize, c: usize| {
            let at = self.groups[c] * self.rows + r;
            (self.codes[c * self.rows + r] as f32 - self.zeros[at] as f32) * self.scales[at]
        };
        (0..self.rows * self.cols).map(|i| value(i / self.cols, i % self.cols)).collect()
    }

    fn entries(&self, base: &str, qweight: (Vec<usize>, Vec<u32>), qzeros: Vec<u32>) -> Vec<Entry> {
        let groups = self.scales.len() / self.rows;
        let scales = self.scales.iter().flat_map(|&s| f16::from_f32(s).to_le_bytes()).collect();
        vec![
            (format!("{base}.qweight"), Dtype::I32, qweight.0, bytes(&qweight.1)),
            (format!("{base}.qzeros"), Dtype::I32, vec![groups, self.rows / 8], bytes(&qzeros)),
            (format!("{base}.scales"), Dtype::F16, vec![groups, self.rows], scales),
        ]
    }

    fn awq(&self, base: &str) -> (Vec<Entry>, Vec<f32>) {
        let pack = |values: &[u32]| words(values, [0, 2, 4, 6, 1, 3, 5, 7]);
        (self.entries(base, (vec![self.cols, self.rows / 8], pack(&self.codes)), pack(&self.zeros)), self.values())
    }

    fn gptq(&self, base: &str) -> (Vec<Entry>, Vec<f32>) {
        let word = |c: usize, r: usize| (0..8).fold(0u32, |word, i| word | self.codes[(8 * c + i) * self.rows + r] << (4 * i));
        let codes = (0..self.cols / 8).flat_map(|c| (0..self.rows).map(move |r| word(c, r))).collect();
        let stored: Vec<u32> = self.zeros.iter().map(|zero| zero - 1).collect();
        let mut entries = self.entries(base, (vec![self.cols / 8, self.rows], codes), words(&stored, [0, 1, 2, 3, 4, 5, 6, 7]));
        let g_idx: Vec<u32> = self.groups.iter().map(|&g| g as u32).collect();
        entries.push((format!("{base}.g_idx"), Dtype::I32, vec![self.cols], bytes(&g_idx)));
        (entries, self.values())
    }
}

/// Eight values to a word, `order[i]` in nibble i.
fn words(values: &[u32], order: [usize; 8]) -> Vec<u32> {
    values.chunks_exact(8).map(|eight| (0..8).fold(0, |word, i| word | eight[order[i]] << (4 * i))).collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Of OCP's E4M3.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = if exponent == 0 { mantissa / 8.0 * 2f32.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

fn fp8(base: &str, rows: usize, cols: usize, values: &[f32], block: [usize; 2], scale_name: &str) -> (Vec<Entry>, Vec<f32>) {
    let grid = [rows.div_ceil(block[0]), cols.div_ceil(block[1])];
    let place = |i: usize| i / cols / block[0] * grid[1] + i % cols / block[1];
    let mut scales = vec![1e-6f32; grid[0] * grid[1]];
    values.iter().enumerate().for_each(|(i, v)| scales[place(i)] = scales[place(i)].max(v.abs() / 448.0));
    let nearest = |v: f32| {
        let distance = |byte: &u8| (e4m3(*byte) - v.abs()).abs();
        let byte = (0..0x7f).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        if v < 0.0 { byte | 0x80 } else { byte }
    };
    let codes: Vec<u8> = values.iter().enumerate().map(|(i, v)| nearest(v / scales[place(i)])).collect();
    let dequantized = codes.iter().enumerate().map(|(i, &code)| e4m3(code) * scales[place(i)]).collect();
    let stored = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    let entries = vec![
        (format!("{base}.weight"), Dtype::F8_E4M3, vec![rows, cols], codes),
        (format!("{base}.{scale_name}"), Dtype::F32, grid.to_vec(), stored),
    ];
    (entries, dequantized)
}

/// Writes the fixture twice: packed, and with the values that this stands for.
fn write(method: Method, packed: &Path, plain: &Path) {
    let stored = std::fs::read(folder(FIXTURE).join("model.safetensors")).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(folder(FIXTURE).join("config.json")).unwrap()).unwrap();
    let (mut packed_entries, mut plain_entries) = (Vec::new(), Vec::new());
    for (name, tensor) in SafeTensors::deserialize(&stored).unwrap().tensors() {
        assert_eq!(tensor.dtype(), Dtype::BF16);
        let Some(base) = name.strip_suffix(".weight").filter(|base| base.ends_with("_proj")) else {
            let entry = (name, Dtype::BF16, tensor.shape().to_vec(), tensor.data().to_vec());
            packed_entries.push(entry.clone());
            plain_entries.push(entry);
            continue;
        };
        let values: Vec<f32> = tensor.data().chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        let (entries, dequantized) = method.pack(base, tensor.shape()[0], tensor.shape()[1], &values);
        packed_entries.extend(entries);
        plain_entries.push((name, Dtype::F32, tensor.shape().to_vec(), dequantized.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    let save = |folder: &Path, entries: &[Entry], config: &Value| {
        let views = entries.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    };
    save(plain, &plain_entries, &config);
    let mut quantized = config;
    quantized["quantization_config"] = method.declaration();
    save(packed, &packed_entries, &quantized);
}

/// Largest difference of a log-probability, with the reference's tokens as the text.
fn worst(packed: &Path, plain: &Path, isa: Option<Isa>) -> Option<f32> {
    let cases: Vec<Case> = reference(&folder(FIXTURE)).cases;
    let run = |folder: &Path| {
        let mut executor = executor(folder, CpuConfig { isa, ..EXACT }, 16)?;
        Some(drive(&mut executor, &cases, Cut { block_size: 16, chunk: 64, together: true }, true))
    };
    let (ours, expected) = (run(packed)?.concat(), run(plain)?.concat());
    assert_eq!(ours.len(), expected.len());
    let differences = ours.iter().zip(&expected).flat_map(|(ours, expected)| {
        let of = |id: u32| expected.top.iter().find(|(other, _)| *other == id).map(|(_, p)| *p);
        ours.top.iter().take(5).map(move |(id, p)| of(*id).map_or(f32::INFINITY, |expected| (p - expected).abs()))
    });
    Some(differences.fold(0.0, f32::max))
}

#[test]
fn packed_folders_say_what_their_weights_say() {
    for method in [Method::Awq, Method::Gptq { shuffled: false }, Method::Gptq { shuffled: true }, Method::Fp8Blocks, Method::Fp8Rows] {
        let (packed, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(method, packed.path(), plain.path());
        for isa in ISAS {
            if let Some(worst) = worst(packed.path(), plain.path(), Some(isa)) {
                println!("{method:?}, {isa:?}: log-probabilities within {worst}");
                assert!(worst < TOLERANCE, "{method:?}, {isa:?}: a log-probability differs by {worst}");
            }
        }
    }
}
