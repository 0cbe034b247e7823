//! Kernels in the shapes of Qwen3 0.6B, and a whole step of its layers, with random weights.
//!
//! `GiB/s` of decode is to be held against the memory's bandwidth, `Gelem/s` (floating point operations) of prefill against the
//! processor's peak. Weights are many times larger than the caches, as in a model.
//!
//! Floors of a step: decode reads all weights once (881 MB of layers, 311 MB of head) and 114,688 bytes of keys and values per token of
//! context, divided by the memory's bandwidth; prefill computes 881 MFLOP per token in the layers, and 229,376 per pair of token and
//! position in attention, divided by the peak (cores x clock x 2 x 64 with AVX-512 BF16 on Zen 5).

use std::{cell::LazyCell, hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokenflow_engine::backend::{
    Activation, AttentionConfig, Backend, BlockFormat, DType, KvLayout, MatrixView, Norm, QkNorm, RaggedBatch, RopeTable, TensorView,
    cpu::{CpuBackend, CpuBatch, CpuBuffer, CpuConfig, CpuKvCache, CpuMatrix, CpuVector},
};

const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 3072;
const HEAD_DIM: usize = 128;
const LAYERS: usize = 28;
const VOCABULARY: usize = 151_936;
const ATTENTION: AttentionConfig =
    AttentionConfig { num_heads: 16, num_kv_heads: 8, head_dim: HEAD_DIM, scale: 0.088_388_35, sliding_window: None, soft_cap: None };
const QKV: usize = (16 + 2 * 8) * HEAD_DIM;
const BLOCK_SIZE: usize = 16;
/// `[inputs, outputs]` of a layer's products.
const SHAPES: [(&str, usize, usize); 4] =
    [("qkv", HIDDEN, QKV), ("o", 16 * HEAD_DIM, HIDDEN), ("gate_up", HIDDEN, 2 * INTERMEDIATE), ("down", INTERMEDIATE, HIDDEN)];

/// How weights are encoded.
#[derive(Clone, Copy, Debug)]
enum Weights {
    Plain(DType),
    Blocks(BlockFormat),
    Int4 { group_size: usize },
    Fp8 { block: usize },
}

const PACKED: [Weights; 8] = [
    Weights::Plain(DType::F16),
    Weights::Blocks(BlockFormat::Q8_0),
    Weights::Blocks(BlockFormat::Q4_0),
    Weights::Blocks(BlockFormat::Q4K),
    Weights::Blocks(BlockFormat::Q5K),
    Weights::Blocks(BlockFormat::Q6K),
    Weights::Int4 { group_size: 128 },
    Weights::Fp8 { block: 128 },
];

/// A matrix of random bytes whose values are small numbers.
fn matrix(backend: &CpuBackend, weights: Weights, inputs: usize, outputs: usize) -> CpuMatrix {
    let mut state = 1u32;
    let mut random = |len: usize| -> Vec<u8> {
        let words = (0..len.div_ceil(2)).flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as u16).to_le_bytes()
        });
        words.take(len).collect()
    };
    // An f16 of 2^-10.
    const FACTOR: [u8; 2] = 0x1400u16.to_le_bytes();
    let shape = [outputs, inputs];
    let packed = match weights {
        Weights::Plain(dtype) => {
            let mut bytes = random(inputs * outputs * 2);
            // About 2^-7 as bf16 and 1 as f16, of either sign.
            bytes.iter_mut().skip(1).step_by(2).for_each(|b| *b = *b & 0x80 | 0x3c);
            backend.matrix(&[TensorView { dtype, shape, bytes: &bytes }.into()])
        }
        Weights::Blocks(format) => {
            let mut bytes = random(inputs * outputs / format.elements_per_block() * format.bytes_per_block());
            for block in bytes.chunks_exact_mut(format.bytes_per_block()) {
                match format {
                    BlockFormat::Q8_0 | BlockFormat::Q4_0 => block[..2].copy_from_slice(&FACTOR),
                    BlockFormat::Q4K | BlockFormat::Q5K => block[..4].copy_from_slice(&[FACTOR, FACTOR].concat()),
                    BlockFormat::Q6K => block[208..].copy_from_slice(&FACTOR),
                }
            }
            backend.matrix(&[MatrixView::Blocks { format, shape, bytes: &bytes }])
        }
        Weights::Int4 { group_size } => {
            let groups = outputs * inputs / group_size;
            let (codes, scales, zeros) = (random(inputs * outputs / 2), FACTOR.repeat(groups), vec![8; groups]);
            backend.matrix(&[MatrixView::Int4 { shape, group_size, codes: &codes, scales: &scales, zeros: &zeros, groups: None }])
        }
        Weights::Fp8 { block } => {
            let mut bytes = random(inputs * outputs);
            bytes.iter_mut().for_each(|b| *b &= 0xbf);
            let scales = vec![0.01; outputs.div_ceil(block) * inputs.div_ceil(block)];
            backend.matrix(&[MatrixView::Fp8 { shape, bytes: &bytes, scales: &scales, scale_block: [block, block] }])
        }
    };
    packed.expect("valid")
}

fn activations(rows: usize, cols: usize) -> CpuBuffer {
    CpuBuffer::from_vec(rows, cols, (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.02).collect())
}

/// `sequences` sequences with `tokens` new tokens each, after `computed` tokens.
fn batch(backend: &CpuBackend, sequences: usize, tokens: usize, computed: usize) -> CpuBatch {
    let mut batch = RaggedBatch { query_start: vec![0], table_start: vec![0], ..RaggedBatch::default() };
    let blocks = (computed + tokens).div_ceil(BLOCK_SIZE) as u32;
    for sequence in 0..sequences as u32 {
        let table: Vec<u32> = (0..blocks).map(|block| sequence + block * sequences as u32).collect();
        for position in computed..computed + tokens {
            batch.tokens.push(position as u32);
            batch.positions.push(position as u32);
            batch.slots.push(table[position / BLOCK_SIZE] * BLOCK_SIZE as u32 + (position % BLOCK_SIZE) as u32);
        }
        batch.block_tables.extend(table);
        batch.table_start.push(batch.block_tables.len() as u32);
        batch.query_start.push(batch.tokens.len() as u32);
        batch.context_len.push((computed + tokens) as u32);
        batch.logits_rows.push(batch.tokens.len() as u32 - 1);
    }
    backend.batch(batch)
}

fn kv_cache(backend: &CpuBackend, layers: usize, tokens: usize) -> CpuKvCache {
    let num_blocks = tokens.div_ceil(BLOCK_SIZE);
    let layout = KvLayout { num_layers: layers, num_blocks, block_size: BLOCK_SIZE, num_kv_heads: 8, head_dim: HEAD_DIM };
    backend.kv_cache(layout).expect("memory")
}

/// Writes to all of the cache: memory that was never written is one page of zeros, which would stay in the processor's cache.
fn fill(backend: &CpuBackend, kv: &mut CpuKvCache, sequences: usize, tokens: usize) {
    let rope = RopeTable { inv_freq: backend.vector_f32(&[0.1; HEAD_DIM / 2]), rotary_dim: HEAD_DIM, scale: 1.0 };
    let batch = batch(backend, sequences, tokens, 0);
    let mut qkv = activations(sequences * tokens, QKV);
    for layer in 0..LAYERS {
        backend.rope_and_write_kv(&batch, &mut qkv, &ATTENTION, None, &rope, kv, layer);
    }
}

struct Layer {
    norm: Norm<CpuVector>,
    head_norm: CpuVector,
    products: [CpuMatrix; 4],
}

/// The layers of the model without its embedding.
struct Stack {
    layers: Vec<Layer>,
    head: CpuMatrix,
    rope: RopeTable<CpuVector>,
}

impl Stack {
    fn new(backend: &CpuBackend, weights: Weights) -> Self {
        let layer = |_| Layer {
            norm: Norm::Rms { weight: backend.vector_f32(&[1.0; HIDDEN]), eps: 1e-6 },
            head_norm: backend.vector_f32(&[1.0; HEAD_DIM]),
            products: SHAPES.map(|(_, inputs, outputs)| matrix(backend, weights, inputs, outputs)),
        };
        let inv_freq: Vec<f32> = (0..HEAD_DIM / 2).map(|i| 1e6f32.powf(-(i as f32) / 64.0)).collect();
        Self {
            layers: (0..LAYERS).map(layer).collect(),
            head: matrix(backend, weights, HIDDEN, VOCABULARY),
            rope: RopeTable { inv_freq: backend.vector_f32(&inv_freq), rotary_dim: HEAD_DIM, scale: 1.0 },
        }
    }

    fn step(&self, b: &CpuBackend, batch: &CpuBatch, x: &mut CpuBuffer, kv: &mut CpuKvCache, buffers: &mut [CpuBuffer; 4]) {
        let [normed, wide, narrow, delta] = buffers;
        for (index, Layer { norm, head_norm, products: [qkv, o, gate_up, down] }) in self.layers.iter().enumerate() {
            b.norm(x, norm, normed);
            b.linear(normed, qkv, None, wide);
            let norms = QkNorm { q: head_norm, k: head_norm, eps: 1e-6 };
            b.rope_and_write_kv(batch, wide, &ATTENTION, Some(norms), &self.rope, kv, index);
            b.paged_attention(batch, wide, &ATTENTION, kv, index, narrow);
            b.linear(narrow, o, None, delta);
            b.add_norm(x, delta, norm, normed);
            b.linear(normed, gate_up, None, wide);
            b.gated_activate(Activation::Silu, wide, narrow);
            b.linear(narrow, down, None, delta);
        }
        b.gather_logits_rows(batch, x, Some(delta), normed);
        b.linear(normed, &self.head, None, wide);
    }
}

fn kernels(c: &mut Criterion) {
    let backend = CpuBackend::new(CpuConfig::default()).expect("portable at least");
    println!("{:?}, {} threads", backend.isa(), backend.threads());
    let stack = Stack::new(&backend, Weights::Plain(DType::BF16));
    linear(c, &backend, &stack);
    attention(c, &backend);
    elementwise(c, &backend, &stack);
    steps(c, &backend, &stack);
    drop(stack);
    packed(c, &backend);
}

fn linear(c: &mut Criterion, backend: &CpuBackend, stack: &Stack) {
    let mut group = c.benchmark_group("linear");
    let mut out = backend.buffer();
    for (i, (name, inputs, outputs)) in SHAPES.into_iter().enumerate() {
        for rows in [1, 8, 256, 512] {
            let x = activations(rows, inputs);
            let work = if rows < 16 { Throughput::Bytes } else { Throughput::Elements };
            let amount = if rows < 16 { 2 * inputs * outputs } else { 2 * rows * inputs * outputs };
            group.throughput(work(amount as u64));
            let mut layers = stack.layers.iter().cycle();
            group.bench_function(BenchmarkId::new(name, rows), |b| {
                b.iter(|| layers.next().map(|layer| backend.linear(&x, &layer.products[i], None, &mut out)));
            });
        }
    }
    for rows in [1, 8] {
        let x = activations(rows, HIDDEN);
        group.throughput(Throughput::Bytes(2 * (HIDDEN * VOCABULARY) as u64));
        group.bench_function(BenchmarkId::new("head", rows), |b| b.iter(|| backend.linear(&x, &stack.head, None, &mut out)));
    }
}

fn attention(c: &mut Criterion, backend: &CpuBackend) {
    let mut group = c.benchmark_group("attention");
    for (name, sequences, tokens, computed) in
        [("decode at 1k", 1, 1, 1023), ("decode at 1k", 8, 1, 1023), ("prefill", 1, 512, 0), ("prefill after 1.5k", 1, 512, 1536)]
    {
        let mut kv = kv_cache(backend, LAYERS, sequences * (computed + tokens));
        fill(backend, &mut kv, sequences, computed + tokens);
        let batch = batch(backend, sequences, tokens, computed);
        let qkv = activations(sequences * tokens, QKV);
        let mut out = backend.buffer();
        let positions: usize = (computed + 1..=computed + tokens).sum();
        group.throughput(if tokens == 1 {
            Throughput::Bytes((2 * sequences * positions * 8 * HEAD_DIM * 2) as u64)
        } else {
            Throughput::Elements((4 * sequences * positions * 16 * HEAD_DIM) as u64)
        });
        let mut layers = (0..LAYERS).cycle();
        group.bench_function(BenchmarkId::new(name, sequences), |b| {
            b.iter(|| layers.next().map(|layer| backend.paged_attention(&batch, &qkv, &ATTENTION, &kv, layer, &mut out)));
        });
    }
}

fn elementwise(c: &mut Criterion, backend: &CpuBackend, stack: &Stack) {
    let mut group = c.benchmark_group("elementwise");
    for rows in [1, 8, 256] {
        let (batch, mut kv) = (batch(backend, rows.min(8), rows / rows.min(8), 0), kv_cache(backend, LAYERS, rows.max(8 * BLOCK_SIZE)));
        let (mut x, delta, mut out) = (activations(rows, HIDDEN), activations(rows, HIDDEN), backend.buffer());
        let Layer { norm, head_norm, .. } = &stack.layers[0];
        group.bench_function(BenchmarkId::new("add_norm", rows), |b| b.iter(|| backend.add_norm(&mut x, &delta, norm, &mut out)));
        let wide = activations(rows, 2 * INTERMEDIATE);
        group.bench_function(BenchmarkId::new("gated_activate", rows), |b| {
            b.iter(|| backend.gated_activate(Activation::Silu, &wide, &mut out))
        });
        let (mut qkv, mut layers) = (activations(rows, QKV), (0..LAYERS).cycle());
        group.bench_function(BenchmarkId::new("rope_and_write_kv", rows), |b| {
            b.iter(|| {
                let norms = QkNorm { q: head_norm, k: head_norm, eps: 1e-6 };
                let layer = layers.next().unwrap_or(0);
                backend.rope_and_write_kv(&batch, &mut qkv, &ATTENTION, Some(norms), &stack.rope, &mut kv, layer);
            });
        });
    }
}

fn steps(c: &mut Criterion, backend: &CpuBackend, stack: &Stack) {
    let mut group = c.benchmark_group("step");
    for (name, sequences, tokens, computed) in [("decode at 256", 1, 1, 255), ("decode at 256", 8, 1, 255), ("prefill", 1, 256, 0)] {
        let mut kv = kv_cache(backend, LAYERS, sequences * (computed + tokens));
        fill(backend, &mut kv, sequences, computed);
        let batch = batch(backend, sequences, tokens, computed);
        let mut x = activations(sequences * tokens, HIDDEN);
        let mut buffers = [backend.buffer(), backend.buffer(), backend.buffer(), backend.buffer()];
        group.throughput(Throughput::Elements((sequences * tokens) as u64));
        group.bench_function(BenchmarkId::new(name, sequences), |b| {
            b.iter(|| stack.step(backend, black_box(&batch), &mut x, &mut kv, &mut buffers));
        });
    }
}

/// Steps with weights as quantised models have them; decode in bytes of weights.
fn packed(c: &mut Criterion, backend: &CpuBackend) {
    let mut group = c.benchmark_group("packed");
    for weights in PACKED {
        let name = format!("{weights:?}");
        let stack = LazyCell::new(|| Stack::new(backend, weights));
        for (what, sequences, tokens) in [("decode", 1, 1), ("decode", 8, 1), ("prefill", 1, 256)] {
            let computed = if tokens == 1 { 255 } else { 0 };
            let batch = batch(backend, sequences, tokens, computed);
            let mut x = activations(sequences * tokens, HIDDEN);
            let mut buffers = [backend.buffer(), backend.buffer(), backend.buffer(), backend.buffer()];
            group.bench_function(BenchmarkId::new(format!("{name}, {what}"), sequences), |b| {
                let mut kv = kv_cache(backend, LAYERS, sequences * 256);
                fill(backend, &mut kv, sequences, computed);
                b.iter(|| stack.step(backend, black_box(&batch), &mut x, &mut kv, &mut buffers));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
