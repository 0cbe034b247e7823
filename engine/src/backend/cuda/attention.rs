//! Rotary embedding with the write into the cache, and attention: one token at a time with its context split among blocks, or tiles of a
//! prompt's rows.

use tokenflow_gpu::GpuError;

use super::{CudaBackend, CudaBatch, CudaKvCache, CudaVector, args, batch::Singles, buffer::Buffer};
use crate::backend::{AttentionConfig, QkNorm, RopeTable};

const THREADS: u32 = 128;
/// Query heads of a KV head that one block takes.
const DECODE_HEADS: usize = 16;
/// Blocks of decode attention for each multiprocessor.
const BLOCKS_EACH: usize = 4;

/// The least head size that kernels are made for and that holds `head_dim`.
pub(super) fn kernel_dim(head_dim: usize) -> usize {
    if head_dim <= 64 {
        64
    } else if head_dim <= 128 {
        128
    } else {
        256
    }
}

impl CudaBackend {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn run_rope(
        &self,
        batch: &CudaBatch,
        qkv: &Buffer,
        attention: &AttentionConfig,
        norms: Option<&QkNorm<'_, CudaVector>>,
        rope: &RopeTable<CudaVector>,
        kv: &CudaKvCache,
        layer: usize,
    ) -> Result<(), GpuError> {
        let half = rope.inv_freq.len;
        let angles = {
            let bytes = self.device.config.max_tokens.max(batch.rows) * 2 * half * size_of::<f32>();
            let out = self.scratch.lock().angles(rope.inv_freq.start(), bytes)?;
            let mut done = batch.angles.lock();
            if !done.contains(&rope.inv_freq.start()) {
                let args = args::RopeAngles {
                    positions: batch.positions,
                    inv_freq: rope.inv_freq.start(),
                    out,
                    tokens: batch.rows as u32,
                    half: half as u32,
                    scale: rope.scale,
                    unused: 0,
                };
                let threads = self.device.threads(batch.rows * half, 256);
                self.device.launch(&["rope_angles"], [(batch.rows * half).div_ceil(threads as usize), 1, 1], threads, 0, &args)?;
                done.push(rope.inv_freq.start());
            }
            out
        };
        let args = args::RopeKv {
            qkv: qkv.data(),
            angles,
            slots: batch.slots,
            q_norm: norms.map_or(tokenflow_gpu::DevicePtr::NULL, |norms| norms.q.start()),
            k_norm: norms.map_or(tokenflow_gpu::DevicePtr::NULL, |norms| norms.k.start()),
            cache: kv.layer(layer),
            kv: kv.shape(),
            num_heads: attention.num_heads as u32,
            half: half as u32,
            eps: norms.map_or(0.0, |norms| norms.eps),
        };
        let heads = attention.num_heads + 2 * attention.num_kv_heads;
        let threads = self.device.threads(heads * self.device.warp(), 256);
        let grid = [batch.rows, heads.div_ceil(threads as usize / self.device.warp()), 1];
        self.device.launch(&["rope_kv", self.device.tag(), self.device.config.kv_tag()], grid, threads, 0, &args)
    }

    pub(super) fn run_attention(
        &self,
        batch: &CudaBatch,
        qkv: &Buffer,
        attention: &AttentionConfig,
        kv: &CudaKvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<(), GpuError> {
        let AttentionConfig { num_heads, num_kv_heads, head_dim, .. } = *attention;
        assert_eq!((num_kv_heads, head_dim), (kv.layout.num_kv_heads, kv.layout.head_dim), "heads of attention and cache");
        let null = tokenflow_gpu::DevicePtr::NULL;
        let args = args::Attention {
            qkv: qkv.data(),
            cache: kv.layer(layer),
            out: out.activations(batch.rows, num_heads * head_dim, qkv.shape().room)?,
            positions: batch.positions,
            query_start: batch.query_start,
            block_tables: batch.block_tables,
            table_start: batch.table_start,
            work: batch.singles.work.unwrap_or(null),
            items: null,
            item_start: null,
            partial: null,
            partial_state: null,
            kv: kv.shape(),
            num_heads: num_heads as u32,
            num_rows: batch.singles.count as u32,
            split_positions: self.device.config.split_positions as u32,
            scale: attention.scale,
            soft_cap: attention.soft_cap.unwrap_or(0.0),
            window: attention.sliding_window.unwrap_or(0) as u32,
            unused: 0,
        };
        if self.device.config.is_exact() {
            let kernel = ["attention_exact", self.device.tag(), self.device.config.kv_tag()];
            return self.device.launch(&kernel, [batch.singles.count, num_heads, 1], THREADS, 0, &args);
        }
        let (dim, kv_bytes) = (kernel_dim(head_dim), self.device.config.kv_bytes());
        let name = |kind| [kind, self.device.tag(), self.device.config.kv_tag(), ["64", "128", "256"][dim / 128]];
        let group = num_heads / num_kv_heads;
        let shared = args::Attention::decode_shared_bytes(dim, kv_bytes);
        self.attend_singles(batch, args, &name("attention_decode"), num_kv_heads * group.div_ceil(DECODE_HEADS), shared)?;
        let tiles = self.tiles(batch, group)?;
        let args = args::Attention { work: tiles.work.unwrap_or(null), ..args };
        let shared = args::Attention::prefill_shared_bytes(dim, kv_bytes);
        self.device.launch(&name("attention_prefill"), [tiles.count, num_kv_heads, 1], THREADS, shared, &args)
    }

    fn attend_singles(
        &self,
        batch: &CudaBatch,
        args: args::Attention,
        kernel: &[&'static str],
        grid_heads: usize,
        shared_bytes: usize,
    ) -> Result<(), GpuError> {
        let Singles { count, is_split, ref groups, .. } = batch.singles;
        if count == 0 {
            return Ok(());
        }
        let (num_heads, head_dim, config) = (args.num_heads as usize, args.kv.head_dim as usize, &self.device.config);
        let most_items = config.most_items();
        // The same for every step, so that graphs find them where they were.
        let mut scratch = self.scratch.lock();
        let items = scratch.part("attention items", most_items * size_of::<[u32; 2]>())?;
        let item_start = scratch.part("attention item starts", (config.max_seqs.max(count) + 1) * size_of::<u32>())?;
        let partial = scratch.part("attention", most_items * num_heads * head_dim * size_of::<f32>())?;
        let partial_state = scratch.part("attention state", most_items * num_heads * 2 * size_of::<f32>())?;
        drop(scratch);
        // A block goes on with the next item when it is done with one: a record does for contexts of any length.
        let blocks = if is_split { (self.device.gpu.info().num_multiprocessors * BLOCKS_EACH).div_ceil(grid_heads) } else { 1 };
        let mut listed = batch.items.lock();
        for (index, rows) in groups.iter().enumerate() {
            let work = args.work.add(rows.start * size_of::<[u32; 2]>());
            let args = args::Attention { work, items, item_start, partial, partial_state, num_rows: rows.len() as u32, ..args };
            if *listed != Some(index) {
                let args::Attention { positions, split_positions, num_rows, .. } = args;
                let list = args::AttentionItems { positions, work, items, item_start, rows: num_rows, split_positions };
                self.device.launch(&["attention_items"], [1, 1, 1], self.device.threads(rows.len(), 1024), 0, &list)?;
                *listed = Some(index);
            }
            self.device.launch(kernel, [blocks.max(rows.len()), grid_heads, 1], THREADS, shared_bytes, &args)?;
            if is_split {
                let threads = self.device.threads(head_dim, 256);
                self.device.launch(&["attention_combine", self.device.tag()], [rows.len(), num_heads, 1], threads, 0, &args)?;
            }
        }
        Ok(())
    }
}
