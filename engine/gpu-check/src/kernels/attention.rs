//! Rotary embedding, the cache and attention, step by step over ragged batches. What the cache does not hold yet is NaN.

use anyhow::{Context, bail};
use bytemuck::Pod;
use half::{bf16, f16};
use tokenflow_engine::backend::cuda::args;
use tokenflow_engine::{
    backend::{
        AttentionConfig, Backend, KvLayout, QkNorm, RaggedBatch, RopeTable,
        cpu::{CpuBackend, CpuBuffer, CpuKvCache, KvType},
    },
    kv::BlockId,
    scheduler::{ScheduledSequence, SequenceId, StepPlan},
};
use tokenflow_gpu::{DevicePtr, Vendor};

use super::{Check, Random, elements::Element, reference};
use crate::card::{Card, Device};

/// What the cache holds.
pub trait KvElement: Pod {
    const NAME: &'static str;
    const TYPE: KvType;
    /// Greatest error of a mean of values of size 1, where scores are about 1.
    const TOLERANCE: f32;
}

impl KvElement for f32 {
    const NAME: &'static str = "f32";
    const TYPE: KvType = KvType::F32;
    const TOLERANCE: f32 = 2e-5;
}

impl KvElement for bf16 {
    const NAME: &'static str = "bf16";
    const TYPE: KvType = KvType::BF16;
    const TOLERANCE: f32 = 0.012;
}

impl KvElement for f16 {
    const NAME: &'static str = "f16";
    const TYPE: KvType = KvType::F16;
    const TOLERANCE: f32 = 0.003;
}

impl KvElement for u8 {
    const NAME: &'static str = "e4m3";
    const TYPE: KvType = KvType::Fp8;
    // What is rounded to e4m3 may fall to either side of an edge.
    const TOLERANCE: f32 = 0.02;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    Decode,
    Prefill,
}

struct Case {
    random: Random,
    config: AttentionConfig,
    rotary_dim: usize,
    norms: bool,
    block_size: usize,
    lengths: Vec<usize>,
    /// What queries are multiplied by: larger scores make a sharper softmax.
    sharpness: f32,
    split_positions: usize,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let head_dim = [64, 128, 80, 256, 96, 192, 64, 128][seed as usize % 8];
        let num_kv_heads = random.within(1..=2);
        let group = random.one_of(&[1, 2, 3, 4, 7, 18]);
        let config = AttentionConfig {
            num_heads: num_kv_heads * group,
            num_kv_heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
            sliding_window: random.one_of(&[None, None, Some(1), Some(9), Some(70)]),
            soft_cap: random.one_of(&[None, None, Some(2.0)]),
        };
        let lengths = (0..random.within(2..=4)).map(|_| random.one_of(&[1, 5, 17, 64, 65, 90, 150])).collect();
        Self {
            config,
            rotary_dim: random.one_of(&[head_dim, head_dim / 4 * 2]),
            norms: random.below(2) == 0,
            block_size: random.one_of(&[8, 16, 24]),
            lengths,
            sharpness: random.one_of(&[1.0, 4.0]),
            split_positions: random.one_of(&[64, 128, 1024]),
            random,
        }
    }

    fn qkv_cols(&self) -> usize {
        (self.config.num_heads + 2 * self.config.num_kv_heads) * self.config.head_dim
    }

    fn kv_shape(&self) -> args::KvShape {
        let AttentionConfig { num_kv_heads, head_dim, .. } = self.config;
        args::KvShape { num_kv_heads: num_kv_heads as u32, block_size: self.block_size as u32, head_dim: head_dim as u32 }
    }
}

/// The device's state beside the CPU's.
struct Both<'a> {
    device: &'a Device<'a>,
    cpu: CpuBackend,
    cpu_cache: CpuKvCache,
    cache: DevicePtr,
    inv_freq: Vec<f32>,
    norms: [Vec<f32>; 2],
}

fn run<T: Element, Kv: KvElement>(card: &Card, seed: u64) -> anyhow::Result<()> {
    let mut case = Case::new(seed);
    let num_blocks = case.lengths.iter().map(|n| n.div_ceil(case.block_size)).sum::<usize>() + 1;
    let AttentionConfig { num_kv_heads, head_dim, .. } = case.config;
    let layout = KvLayout { num_layers: 1, num_blocks, block_size: case.block_size, num_kv_heads, head_dim };
    let device = Device::new(card)?;
    let cpu = reference(Kv::TYPE);
    let inv_freq = (0..case.rotary_dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / case.rotary_dim as f32)).collect();
    let mut both = Both {
        device: &device,
        cpu_cache: cpu.kv_cache(layout).expect("small"),
        cpu,
        cache: device.allocate::<Kv>(2 * num_blocks * num_kv_heads * case.block_size * head_dim)?,
        inv_freq,
        norms: [case.random.values(head_dim), case.random.values(head_dim)],
    };

    let mut done = vec![0; case.lengths.len()];
    let mut blocks: Vec<u32> = (0..num_blocks as u32).collect();
    for i in (1..blocks.len()).rev() {
        blocks.swap(i, case.random.below(i + 1));
    }
    let mut blocks = blocks.into_iter();
    let tables: Vec<Vec<BlockId>> =
        case.lengths.iter().map(|n| blocks.by_ref().take(n.div_ceil(case.block_size)).map(BlockId).collect()).collect();
    let mut step = 0;
    while done != case.lengths {
        let mut plan = StepPlan::default();
        for (i, &length) in case.lengths.iter().enumerate() {
            let chunk = if step % 2 == 1 { 1 } else { case.random.within(1..=100) };
            let n = chunk.min(length - done[i]);
            if n > 0 {
                let (id, block_table) = (SequenceId(i as u64), tables[i].clone());
                plan.sequences.push(ScheduledSequence {
                    id,
                    tokens: vec![0; n],
                    start: done[i],
                    block_table,
                    sample: None,
                    num_draft_tokens: 0,
                    pending: None,
                });
                done[i] += n;
            }
        }
        step += 1;
        both.step::<T, Kv>(&mut case, &plan).with_context(|| format!("seed {seed}, step {step}, {:?}", case.config))?;
        // The rest of a long sequence teaches nothing new.
        if step == 5 {
            break;
        }
    }
    Ok(())
}

impl Both<'_> {
    fn step<T: Element, Kv: KvElement>(&mut self, case: &mut Case, plan: &StepPlan) -> anyhow::Result<()> {
        let (device, config) = (self.device, case.config);
        let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = config;
        let batch = RaggedBatch::new(plan, case.block_size);
        let (tokens, cols) = (batch.num_tokens(), case.qkv_cols());
        let mut rows = case.random.values(tokens * cols);
        rows.chunks_exact_mut(cols).for_each(|row| row[..num_heads * head_dim].iter_mut().for_each(|q| *q *= case.sharpness));
        let rows = T::rounded(&rows);

        let [q_norm, k_norm] =
            if case.norms { [device.upload(&self.norms[0])?, device.upload(&self.norms[1])?] } else { [DevicePtr::NULL; 2] };
        let (positions, half) = (device.upload(&batch.positions)?, self.inv_freq.len() as u32);
        let angles = device.allocate::<f32>(tokens * 2 * half as usize)?;
        let inv_freq = device.upload(&self.inv_freq)?;
        let args = args::RopeAngles { positions, inv_freq, out: angles, tokens: tokens as u32, half, scale: 1.25, unused: 0 };
        device.launch("rope_angles", [(tokens as u32 * half).div_ceil(256), 1, 1], 256, 0, &args)?;
        let qkv = device.upload(&T::all(&rows))?;
        let args = args::RopeKv {
            qkv,
            angles,
            slots: device.upload(&batch.slots)?,
            q_norm,
            k_norm,
            cache: self.cache,
            kv: case.kv_shape(),
            num_heads: num_heads as u32,
            half,
            eps: 1e-6,
        };
        let heads_per_block = 256 / device.warp();
        let grid = [tokens as u32, ((num_heads + 2 * num_kv_heads) as u32).div_ceil(heads_per_block), 1];
        device.launch(&format!("rope_kv_{}_{}", T::NAME, Kv::NAME), grid, 256, 0, &args)?;

        let cpu_batch = self.cpu.batch(batch.clone());
        let mut cpu_qkv = CpuBuffer::from_vec(tokens, cols, rows);
        let [q, k] = &self.norms.each_ref().map(|norm| self.cpu.vector_f32(norm));
        let norms = case.norms.then_some(QkNorm { q, k, eps: 1e-6 });
        let rope = RopeTable { inv_freq: self.cpu.vector_f32(&self.inv_freq), rotary_dim: case.rotary_dim, scale: 1.25 };
        self.cpu.rope_and_write_kv(&cpu_batch, &mut cpu_qkv, &config, norms, &rope, &mut self.cpu_cache, 0);
        let mut expected = self.cpu.buffer();
        self.cpu.paged_attention(&cpu_batch, &cpu_qkv, &config, &self.cpu_cache, 0, &mut expected);

        let queries =
            |values: &[f32]| -> Vec<f32> { values.chunks_exact(cols).flat_map(|row| row[..num_heads * head_dim].to_vec()).collect() };
        let rotated = T::values(&device.download(qkv, tokens * cols)?);
        device.card.compare("rotated queries", &queries(&rotated), &queries(cpu_qkv.as_slice()), 1e-5 + T::ROUNDING)?;

        let num_splits = batch.context_len.iter().map(|n| (*n as usize).div_ceil(case.split_positions)).max().expect("sequences");
        let args = args::Attention {
            qkv,
            cache: self.cache,
            out: DevicePtr::NULL,
            positions,
            query_start: device.upload(&batch.query_start)?,
            block_tables: device.upload(&batch.block_tables)?,
            table_start: device.upload(&batch.table_start)?,
            work: DevicePtr::NULL,
            items: device.allocate::<[u32; 2]>(tokens * num_splits)?,
            item_start: device.allocate::<u32>(tokens + 1)?,
            partial: device.allocate::<f32>(tokens * num_splits * num_heads * head_dim)?,
            partial_state: device.allocate::<f32>(tokens * num_splits * num_heads * 2)?,
            kv: case.kv_shape(),
            num_heads: num_heads as u32,
            num_rows: 0,
            split_positions: case.split_positions as u32,
            scale: config.scale,
            soft_cap: config.soft_cap.unwrap_or(0.0),
            window: config.sliding_window.unwrap_or(0) as u32,
            unused: 0,
        };
        let mut attend = |kernels: &[Kernel]| -> anyhow::Result<Vec<T>> {
            let out = device.allocate::<T>(tokens * num_heads * head_dim)?;
            attend::<T, Kv>(device, args::Attention { out, ..args }, &batch, kernels, config, case.random.within(1..=4) as u32)?;
            device.download(out, tokens * num_heads * head_dim)
        };
        // As a step has them, then each sequence by the other kernel.
        let kernels: Vec<Kernel> =
            plan.sequences.iter().map(|s| if s.tokens.len() == 1 { Kernel::Decode } else { Kernel::Prefill }).collect();
        let found = attend(&kernels)?;
        // Where activations are f32, all is: what the cache was rounded to is the same on both sides, but for values at an edge.
        let tolerance = Kv::TOLERANCE * case.sharpness.max(1.0) + T::ROUNDING;
        device.card.compare("attention", &T::values(&found), expected.as_slice(), tolerance)?;
        if is_exact::<T, Kv>(device.card) {
            return Ok(());
        }
        // A long prompt's tokens one by one take long and teach nothing new.
        let others: Vec<Kernel> = plan
            .sequences
            .iter()
            .map(|s| if s.tokens.len() == 1 || s.tokens.len() > 20 { Kernel::Prefill } else { Kernel::Decode })
            .collect();
        let other = attend(&others)?;
        let differs = found.iter().zip(&other).position(|(a, b)| bytemuck::bytes_of(a) != bytemuck::bytes_of(b));
        match differs {
            Some(i) => {
                let (row, d) = (i / head_dim, i % head_dim);
                bail!(
                    "token {} head {} dimension {d} is {} by one kernel and {} by the other",
                    row / num_heads,
                    row % num_heads,
                    found[i].to_f32(),
                    other[i].to_f32()
                )
            }
            None => Ok(()),
        }
    }
}

/// Whether one kernel attends for all rows, without tensor cores; so on AMD's cards, whose shared memory holds no tiles.
fn is_exact<T: Element, Kv: KvElement>(card: &Card) -> bool {
    T::NAME == "f32" || Kv::NAME == "f32" || card.gpu().info().vendor == Vendor::Amd
}

/// Launches what a step's sequences need. Decoding has one query row a token, prompts have tiles of 64 rows.
fn attend<T: Element, Kv: KvElement>(
    device: &Device,
    mut args: args::Attention,
    batch: &RaggedBatch,
    kernels: &[Kernel],
    config: AttentionConfig,
    blocks: u32,
) -> anyhow::Result<()> {
    let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = config;
    let group = num_heads / num_kv_heads;
    let dim = args::Attention::DIMS.into_iter().find(|&d| head_dim <= d).expect("supported");
    if is_exact::<T, Kv>(device.card) {
        let sequences = batch.query_start.windows(2).zip(0u32..);
        let work: Vec<u32> = sequences.flat_map(|(rows, sequence)| (rows[0]..rows[1]).flat_map(move |token| [token, sequence])).collect();
        args.work = device.upload(&work)?;
        let grid = [work.len() as u32 / 2, num_heads as u32, 1];
        return device.launch(&format!("attention_exact_{}_{}", T::NAME, Kv::NAME), grid, 128, 0, &args);
    }
    let (mut decode, mut prefill) = (Vec::new(), Vec::new());
    for (sequence, (rows, kernel)) in batch.query_start.windows(2).zip(kernels).enumerate() {
        match kernel {
            Kernel::Decode => decode.extend((rows[0]..rows[1]).flat_map(|token| [token, sequence as u32])),
            Kernel::Prefill => {
                let tiles = ((rows[1] - rows[0]) * group as u32).div_ceil(64);
                prefill.extend((0..tiles).flat_map(|tile| [sequence as u32, tile]));
            }
        }
    }
    if !decode.is_empty() {
        args.work = device.upload(&decode)?;
        args.num_rows = decode.len() as u32 / 2;
        let args::Attention { positions, work, items, item_start, num_rows: rows, split_positions, .. } = args;
        let list = args::AttentionItems { positions, work, items, item_start, rows, split_positions };
        device.launch("attention_items", [1, 1, 1], 64, 0, &list)?;
        let grid = [blocks, (num_kv_heads * group.div_ceil(16)) as u32, 1];
        let shared = args::Attention::decode_shared_bytes(dim, size_of::<Kv>());
        device.launch(&format!("attention_decode_{}_{}_{dim}", T::NAME, Kv::NAME), grid, 128, shared, &args)?;
        device.launch(&format!("attention_combine_{}", T::NAME), [rows, num_heads as u32, 1], 64, 0, &args)?;
    }
    if !prefill.is_empty() {
        args.work = device.upload(&prefill)?;
        let grid = [prefill.len() as u32 / 2, num_kv_heads as u32, 1];
        let shared = args::Attention::prefill_shared_bytes(dim, size_of::<Kv>());
        device.launch(&format!("attention_prefill_{}_{}_{dim}", T::NAME, Kv::NAME), grid, 128, shared, &args)?;
    }
    Ok(())
}

/// Some cases of one pair of types; the first eight seeds go through all head sizes.
pub fn attention<T: Element, Kv: KvElement>(card: &Card, seeds: std::ops::Range<u64>) -> anyhow::Result<()> {
    seeds.into_iter().try_for_each(|seed| run::<T, Kv>(card, seed))
}

pub const CHECKS: &[Check] = &[
    Check { name: "attention bf16 over bf16", run: |card| attention::<bf16, bf16>(card, 0..8) },
    Check { name: "attention f16 over f16", run: |card| attention::<f16, f16>(card, 8..16) },
    Check { name: "attention bf16 over fp8", run: |card| attention::<bf16, u8>(card, 16..20) },
    Check { name: "attention f16 over fp8", run: |card| attention::<f16, u8>(card, 20..24) },
    Check { name: "attention f32 over bf16", run: |card| attention::<f32, bf16>(card, 24..28) },
    Check { name: "attention f32 over fp8", run: |card| attention::<f32, u8>(card, 28..32) },
    Check { name: "attention f32 over f32", run: |card| attention::<f32, f32>(card, 32..36) },
    Check { name: "attention bf16 over f32", run: |card| attention::<bf16, f32>(card, 40..42) },
];
