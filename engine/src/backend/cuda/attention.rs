//! Rotary embedding with the write into the cache, and attention: one token at a time with its context split among blocks, or tiles of a
//! prompt's rows.

use tokenflow_gpu::GpuError;

use super::{CudaBackend, CudaBatch, CudaKvCache, CudaVector, args, batch::Singles, buffer::Buffer};
use crate::backend::{AttentionConfig, QkNorm, RopeTable};

const THREADS: u32 = 128;
/// Query heads of a KV head that one block takes.
const DECODE_HEADS: usize = 16;
/// Query rows of a block: of one token, of a prompt.
const DECODE_ROWS: usize = 16;
const PREFILL_ROWS: usize = 64;
/// Bytes of what splits leave for each other; where a step's would be more, its rows go one group after the other.
const MAX_PARTIAL_BYTES: usize = 128 << 20;

/// Dynamic shared memory of attention over `rows` query rows: these, and two stages of 64 keys and values.
fn shared_bytes(rows: usize, dim: usize) -> usize {
    2 * (rows + 4 * 64) * (dim + 8)
}

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
            partial: null,
            partial_state: null,
            kv: kv.shape(),
            num_heads: num_heads as u32,
            split_positions: self.device.config.split_positions as u32,
            num_splits: batch.singles.num_splits as u32,
            scale: attention.scale,
            soft_cap: attention.soft_cap.unwrap_or(0.0),
            window: attention.sliding_window.unwrap_or(0) as u32,
            unused: 0,
        };
        if self.device.config.is_exact() {
            let kernel = ["attention_exact", self.device.tag(), self.device.config.kv_tag()];
            return self.device.launch(&kernel, [batch.singles.count, num_heads, 1], THREADS, 0, &args);
        }
        let dim = if head_dim <= 64 {
            64
        } else if head_dim <= 128 {
            128
        } else {
            256
        };
        let name = |kind| [kind, self.device.tag(), self.device.config.kv_tag(), ["64", "128", "256"][dim / 128]];
        let group = num_heads / num_kv_heads;
        self.attend_singles(batch.singles, args, &name("attention_decode"), [num_kv_heads * group.div_ceil(DECODE_HEADS), dim])?;
        let tiles = self.tiles(batch, group)?;
        let args = args::Attention { work: tiles.work.unwrap_or(null), ..args };
        let shared = shared_bytes(PREFILL_ROWS, dim);
        self.device.launch(&name("attention_prefill"), [tiles.count, num_kv_heads, 1], THREADS, shared, &args)
    }

    fn attend_singles(
        &self,
        singles: Singles,
        args: args::Attention,
        kernel: &[&'static str],
        [grid_heads, dim]: [usize; 2],
    ) -> Result<(), GpuError> {
        let (num_heads, splits) = (args.num_heads as usize, singles.num_splits);
        let config = &self.device.config;
        let row_bytes = |splits: usize| num_heads * splits * args.kv.head_dim as usize * size_of::<f32>();
        // The same for every step, so that graphs find it where it was.
        let most_splits = config.max_model_len.div_ceil(config.split_positions).next_power_of_two().max(splits);
        let room = (config.max_seqs * row_bytes(most_splits)).min(MAX_PARTIAL_BYTES).max(row_bytes(most_splits));
        let rows_at_once = if splits > 1 { room / row_bytes(splits) } else { singles.count.max(1) };
        let mut done = 0;
        while done < singles.count {
            let rows = rows_at_once.min(singles.count - done);
            let mut args = args::Attention { work: args.work.add(done * size_of::<[u32; 2]>()), ..args };
            if splits > 1 {
                let mut scratch = self.scratch.lock();
                args.partial = scratch.part("attention", room)?;
                args.partial_state = scratch.part("attention state", room / args.kv.head_dim as usize * 2)?;
            }
            self.device.launch(kernel, [rows, grid_heads, splits], THREADS, shared_bytes(DECODE_ROWS, dim), &args)?;
            if splits > 1 {
                let threads = self.device.threads(args.kv.head_dim as usize, 256);
                self.device.launch(&["attention_combine", self.device.tag()], [rows, num_heads, 1], threads, 0, &args)?;
            }
            done += rows;
        }
        Ok(())
    }
}
