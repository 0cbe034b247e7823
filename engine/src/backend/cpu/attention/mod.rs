//! Paged causal attention with grouped queries, as two products and an online softmax.
//!
//! Positions are taken in tiles aligned to multiples of 128, whatever the block size, the batch or the chunk, and a row's
//! state is updated tile by tile; what a row does not see has weight exactly zero. So a row's result depends on its own query and
//! its sequence's keys and values only, to the last bit. Decode and prefill are the same code.

mod rows;
mod softmax;

use std::{cmp::Reverse, marker::PhantomData, ops::Range};

use rows::Attend;

use super::{
    Cpu,
    buffer::CpuBuffer,
    config::KvType,
    kv::CpuKvCache,
    product::{Bf16Dot, Bf16Wide, F16Wide, F32Wide, Kind},
    scratch::Shared,
};
use crate::backend::{AttentionConfig, RaggedBatch};

/// Query rows (tokens times heads of a group) that share a reading of keys and values.
const ROWS: usize = 64;

pub(super) fn paged_attention(
    cpu: &Cpu,
    batch: &RaggedBatch,
    qkv: &CpuBuffer,
    attention: &AttentionConfig,
    kv: &CpuKvCache,
    layer: usize,
    out: &mut CpuBuffer,
) {
    assert_eq!(qkv.rows(), batch.num_tokens(), "rows of qkv");
    assert_eq!(kv.layout().head_dim, attention.head_dim, "head dimension of the cache");
    assert_eq!(kv.layout().num_kv_heads, attention.num_kv_heads, "KV heads of the cache");
    assert!(attention.num_heads.is_multiple_of(attention.num_kv_heads), "query heads are grouped evenly");
    out.reshape(qkv.rows(), attention.num_heads * attention.head_dim);
    let call = Call { batch, qkv, attention, kv, layer, out: Shared::new(out.as_mut_slice()) };
    match kv.shape().as_read().dtype {
        KvType::BF16 if cpu.dot_bf16 => attend::<Bf16Dot>(cpu, call),
        KvType::F16 => attend::<F16Wide>(cpu, call),
        KvType::BF16 | KvType::Fp8 => attend::<Bf16Wide>(cpu, call),
        KvType::F32 => attend::<F32Wide>(cpu, call),
    }
}

/// The arguments of the operation.
#[derive(Clone, Copy)]
struct Call<'a> {
    batch: &'a RaggedBatch,
    qkv: &'a CpuBuffer,
    attention: &'a AttentionConfig,
    kv: &'a CpuKvCache,
    layer: usize,
    out: Shared<f32>,
}

/// Some tokens of one sequence and the query heads of one KV head.
struct Item<'a> {
    /// Rows of the batch.
    tokens: Range<usize>,
    table: &'a [u32],
    head: usize,
    /// Positions to read, for balance.
    cost: usize,
}

fn attend<K: Kind>(cpu: &Cpu, call: Call<'_>) {
    let items = items(&call);
    cpu.pool.share(items.len(), |thread, indices| {
        let own = &mut *cpu.own.lock(thread);
        for index in indices {
            cpu.level.run(Attend::<K> { call, item: &items[index], own: &mut *own, kind: PhantomData });
        }
    });
}

/// All items, the longest first.
fn items<'a>(call: &Call<'a>) -> Vec<Item<'a>> {
    let (batch, attention) = (call.batch, call.attention);
    let tokens_per_item = (ROWS / (attention.num_heads / attention.num_kv_heads)).max(1);
    let mut items = Vec::new();
    for (rows, blocks) in batch.query_start.windows(2).zip(batch.table_start.windows(2)) {
        let table = &batch.block_tables[blocks[0] as usize..blocks[1] as usize];
        for start in (rows[0] as usize..rows[1] as usize).step_by(tokens_per_item) {
            let tokens = start..(start + tokens_per_item).min(rows[1] as usize);
            let (first, last) = (batch.positions[tokens.start] as usize, batch.positions[tokens.end - 1] as usize);
            let cost = tokens.len() * (last + 1 - attention.first_seen(first));
            items.extend((0..attention.num_kv_heads).map(|head| Item { tokens: tokens.clone(), table, head, cost }));
        }
    }
    items.sort_by_key(|item| Reverse(item.cost));
    items
}
