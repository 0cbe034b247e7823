//! Weights in every encoding on an emulated card: products are the CPU's, and little of the host's memory is taken on the way.

use std::{
    cell::Cell,
    sync::{Mutex, PoisonError},
};

use half::f16;
use safetensors::{Dtype, tensor::TensorView as Stored};
use tokenflow_engine::{
    backend::{
        Backend, BlockFormat, DType, MatrixView, Norm, RaggedBatch, TensorView,
        cpu::{ComputeType, CpuBackend, CpuConfig},
        cuda::{CudaBackend, CudaConfig, KvType},
    },
    weights::{Checkpoint, Cut, Loader},
};
use tokenflow_gpu::{DeviceChoice, Element, Gpu, kernels::LoadOptions};
use tokenflow_gpu_emulator::{Emulated, Options, install};

/// Counters are the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

const COLUMNS: usize = 256;
const ROWS: usize = 24;
/// Rows that are multiplied by kernels, and those of which the library of products takes encoded weights.
const BATCH: usize = 3;
const LARGE_BATCH: usize = 130;

fn card() -> (&'static Emulated, CudaBackend) {
    card_of(Element::F32, KvType::F32)
}

fn card_of(compute: Element, kv: KvType) -> (&'static Emulated, CudaBackend) {
    // So much that small matrices share slabs.
    let emulated = install(&Options { memory_bytes: 6 << 30, ..Options::nvidia() });
    let gpu = Gpu::open(DeviceChoice::Cuda(None)).unwrap();
    let config = CudaConfig { compute, kv, max_tokens: LARGE_BATCH, max_seqs: LARGE_BATCH, max_model_len: 64, ..CudaConfig::default() };
    (emulated, CudaBackend::open(gpu, config, &LoadOptions { cache: None, ..LoadOptions::default() }).unwrap())
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn halves(seed: u64, count: usize) -> Vec<u8> {
    bytes(seed, count).iter().flat_map(|b| f16::from_f32((f32::from(*b) - 127.5) / 512.0).to_le_bytes()).collect()
}

fn floats(seed: u64, count: usize) -> Vec<u8> {
    bytes(seed, count).iter().flat_map(|b| ((f32::from(*b) - 127.5) / 128.0).to_le_bytes()).collect()
}

fn blocks(seed: u64, format: BlockFormat) -> Vec<u8> {
    let count = ROWS * COLUMNS / format.elements_per_block();
    let mut all = bytes(seed, count * format.bytes_per_block());
    let at: &[usize] = match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 => &[0],
        BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q6K => &[208],
    };
    for (i, block) in all.chunks_exact_mut(format.bytes_per_block()).enumerate() {
        for at in at {
            block[*at..at + 2].copy_from_slice(&halves(seed + i as u64, 1));
        }
    }
    all
}

/// Some rows times the matrix.
fn product<B: Backend>(backend: &B, parts: &[MatrixView<'_>], rows: usize) -> Vec<f32> {
    let values = floats(7, rows * COLUMNS);
    let table = backend.matrix(&[MatrixView::Plain(TensorView { dtype: DType::F32, shape: [rows, COLUMNS], bytes: &values })]).unwrap();
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let batch = RaggedBatch {
        positions: vec![0; rows],
        slots: tokens.clone(),
        query_start: (0..=rows as u32).collect(),
        context_len: vec![1; rows],
        block_tables: vec![0; rows],
        table_start: (0..=rows as u32).collect(),
        tokens,
        ..RaggedBatch::default()
    };
    let matrix = backend.matrix(parts).unwrap();
    let norm = Norm::Rms { weight: backend.vector_f32(&[1.0; COLUMNS]), eps: 1e-6 };
    let (mut stream, mut x, mut out) = (backend.buffer(), backend.buffer(), backend.buffer());
    backend.embed(&backend.batch(batch), &table, 1.0, &mut stream);
    backend.norm(&stream, &norm, &mut x);
    backend.linear(&x, &matrix, None, &mut out);
    backend.read_rows(&out, false).unwrap().concat()
}

/// Products of so many rows are the CPU's but for this part of the largest value; how many of them the library did.
fn products_are_the_cpus(emulated: &Emulated, gpu: &CudaBackend, rows: usize, tolerance: f32) -> [u64; 2] {
    let cpu = CpuBackend::new(CpuConfig { threads: 1, compute: ComputeType::F32, kv_dtype: KvType::F32, ..CpuConfig::default() }).unwrap();
    let (before, compared) = (emulated.counters(), Cell::new(0));
    let compare = |what: &str, parts: &[MatrixView<'_>]| {
        compared.set(compared.get() + 1);
        let (found, expected) = (product(gpu, parts, rows), product(&cpu, parts, rows));
        let worst = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        assert_eq!(found.len(), expected.len(), "{what}");
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= tolerance * worst, "{what}: {off} of {worst}; {}", emulated.last_error());
    };
    let shape = [ROWS, COLUMNS];
    let all = [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4K, BlockFormat::Q5K, BlockFormat::Q6K];
    let made = all.map(|format| (format, blocks(format as u64 + 1, format)));
    let views = made.each_ref().map(|(format, bytes)| MatrixView::Blocks { format: *format, shape, bytes });
    for view in &views {
        compare(&view.encoding(), &[*view, *view]);
    }
    compare("several encodings", &views);

    let (codes, scales) = (bytes(20, ROWS * COLUMNS / 2), halves(21, ROWS * COLUMNS / 64));
    let zeros: Vec<u8> = bytes(22, ROWS * COLUMNS / 64).iter().map(|b| b % 17).collect();
    let scattered: Vec<u32> = (0..COLUMNS as u32).map(|column| column * 5 % 4).collect();
    for groups in [None, Some(&scattered[..])] {
        let view = MatrixView::Int4 { shape, group_size: 64, codes: &codes, scales: &scales, zeros: &zeros, groups };
        compare(&format!("groups {}", groups.is_some()), &[view]);
    }

    let codes: Vec<u8> = bytes(30, ROWS * COLUMNS).into_iter().map(|b| if b & 0x7f == 0x7f { 0 } else { b }).collect();
    let scales: Vec<f32> = bytes(31, ROWS * 2).iter().map(|b| f32::from(*b) / 4096.0).collect();
    for scale_block in [[ROWS, COLUMNS], [1, COLUMNS], [10, 128]] {
        let count = ROWS.div_ceil(scale_block[0]) * COLUMNS.div_ceil(scale_block[1]);
        let view = MatrixView::Fp8 { shape, bytes: &codes, scales: &scales[..count], scale_block };
        compare(&view.encoding(), &[view, view]);
    }
    let after = emulated.counters();
    assert_eq!(after.errors, 0, "{}", emulated.last_error());
    [compared.get(), after.products - before.products]
}

#[test]
fn products_with_encoded_weights_are_the_cpus() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (emulated, gpu) = card();
    let [_, by_library] = products_are_the_cpus(emulated, &gpu, BATCH, 1e-4);
    assert_eq!(by_library, 0);
}

/// Weights and activations are rounded to bf16 once, and results once more.
#[test]
fn products_of_many_rows_with_encoded_weights_are_the_librarys() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (emulated, gpu) = card_of(Element::BF16, KvType::BF16);
    let [all, by_library] = products_are_the_cpus(emulated, &gpu, LARGE_BATCH, 1e-2);
    assert_eq!(by_library, all, "each matrix is widened and multiplied whole");
}

/// Bytes of files in the memory of this process.
fn mapped_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssFile:")?.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap() << 10
}

#[test]
fn loading_takes_two_pieces_of_the_hosts_memory_however_large_the_checkpoint_is() {
    const TENSORS: usize = 12;
    const TENSOR_BYTES: usize = 8 << 20;
    /// More than a piece, so that one is written while another is copied.
    const STACKED: usize = 3;
    let shape = vec![TENSOR_BYTES / 4 / 1024, 1024];
    let folder = tempfile::tempdir().unwrap();
    let values = bytes(3, TENSOR_BYTES).into_iter().map(|b| b & 0x3f).collect::<Vec<_>>();
    let tensors = (0..TENSORS).map(|i| (format!("{i}.weight"), Stored::new(Dtype::F32, shape.clone(), &values).unwrap()));
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (emulated, gpu) = card();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let loader = Loader::new(&checkpoint);
    let (before, pinned) = (mapped_bytes(), emulated.counters());
    gpu.begin_loading("a checkpoint", checkpoint.num_bytes(), 2);
    for first in (0..TENSORS).step_by(STACKED) {
        let names: Vec<_> = (first..first + STACKED).map(|i| format!("{i}.weight")).collect();
        let tensors: Vec<_> = names.iter().map(|name| loader.matrix(name, [shape[0], shape[1]], Cut::None).unwrap()).collect();
        gpu.matrix(&tensors.iter().map(|tensor| tensor.view()).collect::<Vec<_>>()).unwrap();
        names.iter().for_each(|name| loader.release(name));
        let grown = mapped_bytes().saturating_sub(before);
        assert!(grown < TENSORS * TENSOR_BYTES / 2, "{grown} bytes of the checkpoint are in memory after tensor {first}");
    }
    gpu.finish_loading().unwrap();
    let after = emulated.counters();
    assert_eq!(after.pinned_allocations - pinned.pinned_allocations, 2, "slots of 16 MiB");
    assert_eq!(after.pinned_frees - pinned.pinned_frees, 2);
    assert_eq!(after.errors, 0, "{}", emulated.last_error());
}
