//! Paged causal attention with grouped queries, as two products and an online softmax.
//!
//! Positions are taken in tiles aligned to multiples of [`TILE`], whatever the block size, the batch or the chunk, and a row's
//! state is updated tile by tile; what a row does not see has weight exactly zero. So a row's result depends on its own query and
//! its sequence's keys and values only, to the last bit. Decode and prefill are the same code.

use std::{cmp::Reverse, marker::PhantomData, ops::Range};

use super::{
    Cpu,
    buffer::CpuBuffer,
    config::KvType,
    isa::{Kernel, LANES, Simd, math::exp},
    kv::{CpuKvCache, GROUP},
    product::{Bf16Dot, Bf16Wide, Columns, F32Wide, Kind, Out, Pair, ROW_PAIRS, Then, product},
    scratch::{Own, Shared},
};
use crate::backend::{AttentionConfig, RaggedBatch};

/// Positions whose weights are computed before values are summed.
const TILE: usize = 128;
const GROUPS: usize = TILE / GROUP;
/// Query rows (tokens times heads of a group) that share a reading of keys and values.
const ROWS: usize = 64;
/// Up to this many rows, reading keys and values takes longer than the products, and the next ones are asked for early.
const FEW_ROWS: usize = 8;
/// Stands for minus infinity in a running maximum, without making NaN of a difference.
const LOWEST: f32 = f32::MIN;

pub(super) fn paged_attention(
    cpu: &Cpu,
    batch: &RaggedBatch,
    qkv: &CpuBuffer,
    attention: &AttentionConfig,
    kv: &CpuKvCache,
    layer: usize,
    out: &mut CpuBuffer,
) {
    debug_assert_eq!(qkv.rows(), batch.num_tokens(), "rows of qkv");
    debug_assert_eq!(kv.layout().head_dim, attention.head_dim, "head dimension of the cache");
    debug_assert_eq!(kv.layout().num_kv_heads, attention.num_kv_heads, "KV heads of the cache");
    debug_assert!(attention.num_heads.is_multiple_of(attention.num_kv_heads), "query heads are grouped evenly");
    out.reshape(qkv.rows(), attention.num_heads * attention.head_dim);
    let call = Call { batch, qkv, attention, kv, layer, out: Shared::new(out.as_mut_slice()) };
    match kv.shape().dtype {
        KvType::BF16 if cpu.dot_bf16 => attend::<Bf16Dot>(cpu, call),
        KvType::BF16 => attend::<Bf16Wide>(cpu, call),
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
            let cost = tokens.len() * (batch.positions[tokens.end - 1] as usize + 1);
            items.extend((0..attention.num_kv_heads).map(|head| Item { tokens: tokens.clone(), table, head, cost }));
        }
    }
    items.sort_by_key(|item| Reverse(item.cost));
    items
}

struct Attend<'a, K> {
    call: Call<'a>,
    item: &'a Item<'a>,
    own: &'a mut Own,
    kind: PhantomData<K>,
}

impl<K: Kind> Kernel for Attend<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Call { batch, qkv, attention, kv, layer, out } = self.call;
        let Item { tokens, table, head, .. } = self.item;
        let (dim, padded) = (attention.head_dim, kv.shape().padded_dim());
        let group = attention.num_heads / attention.num_kv_heads;
        let rows = tokens.len() * group;
        let queries: &mut [K::A] = self.own.packed.slice(rows * ROW_PAIRS);
        let weights: &mut [K::A] = self.own.weights.slice(rows * ROW_PAIRS);
        let scores: &mut [f32] = self.own.scores.slice(rows * TILE);
        let sums: &mut [f32] = self.own.sums.slice(rows * padded);
        let states = rows.next_multiple_of(LANES);
        let (maxima, rest) = self.own.factors.slice::<f32>(4 * states).split_at_mut(states);
        let (totals, rest) = rest.split_at_mut(states);
        let (factors, tile_totals) = rest.split_at_mut(states);
        let copies: &mut [u32] = self.own.copies.slice(GROUPS * 2 * kv.shape().group_bytes() / 4);
        let copies = bytemuck::cast_slice_mut::<u32, u8>(copies);

        for (t, token) in tokens.clone().enumerate() {
            for g in 0..group {
                let query = &qkv.row(token)[(head * group + g) * dim..][..dim];
                K::A::pack(query, &mut queries[(t * group + g) * ROW_PAIRS..][..ROW_PAIRS]);
            }
        }
        maxima.fill(LOWEST);
        totals.fill(0.0);
        sums.fill(0.0);

        let first_seen = |position: usize| attention.sliding_window.map_or(0, |window| (position + 1).saturating_sub(window));
        let position = |t: usize| batch.positions[tokens.start + t] as usize;
        let first = first_seen(position(0));
        let end = position(tokens.len() - 1) + 1;

        for tile in (first / TILE * TILE..end).step_by(TILE) {
            // Tokens before the tile see nothing of it.
            let skipped = (0..tokens.len()).take_while(|&t| position(t) < tile).count();
            let row0 = skipped * group;
            let seen = rows - row0;
            let start = tile.max(first / GROUP * GROUP);
            let mut groups = [[std::ptr::null(); 2]; GROUPS];
            let mut num_groups = 0;
            for (at, copy) in (start..end.min(tile + TILE)).step_by(GROUP).zip(copies.chunks_exact_mut(2 * kv.shape().group_bytes())) {
                groups[num_groups] = kv.group(layer, *head, table, at, first, end, copy);
                num_groups += 1;
            }
            let groups = &groups[..num_groups];
            let fetch = |group: Option<&[*const u8; 2]>, part: usize| {
                if let Some(group) = group.filter(|_| seen <= FEW_ROWS) {
                    prefetch(s, group[part], kv.shape().group_bytes());
                }
            };

            // SAFETY: queries, scores, weights and sums have `rows` rows; groups point to whole groups of keys and values.
            unsafe {
                let queries = queries.as_ptr().add(row0 * ROW_PAIRS);
                let mut i = 0;
                while i < num_groups {
                    let to = Out { start: scores.as_mut_ptr().add(i * GROUP), stride: TILE, then: Then::Store, bias: std::ptr::null() };
                    for i in [i, i + 1] {
                        fetch(groups.get(i), 1);
                        fetch(groups.get(i + 2), 0);
                    }
                    let (pairs, stride) = (dim.div_ceil(2), kv.shape().key_stride());
                    if i + 1 < num_groups && two_vectors::<S>(seen) {
                        let segments = &[[groups[i][0], groups[i + 1][0]]];
                        product::<S, K, 2>(s, queries, seen, Columns { segments, pairs, stride, prefetch: false }, to);
                        i += 2;
                    } else {
                        product::<S, K, 1>(s, queries, seen, Columns { segments: &[[groups[i][0]]], pairs, stride, prefetch: false }, to);
                        i += 1;
                    }
                }
            }

            factors.fill(0.0);
            tile_totals.fill(0.0);
            for row in row0..rows {
                let position = position(row / group);
                let visible = first_seen(position)..position + 1;
                let scores = &mut scores[(row - row0) * TILE..][..num_groups * GROUP];
                let before = maxima[row];
                maxima[row] = mask_and_max(s, scores, start, visible, attention.scale, before);
                factors[row] = before - maxima[row];
                let weights = &mut weights[(row - row0) * ROW_PAIRS..][..num_groups * GROUP / 2];
                tile_totals[row] = softmax_weights(s, scores, maxima[row], weights);
            }
            for at in (0..rows).step_by(LANES) {
                // SAFETY: the states of rows are padded to whole vectors.
                unsafe {
                    let factor = exp(s, s.load(factors.as_ptr().add(at)));
                    s.store(factor, factors.as_mut_ptr().add(at));
                    let total = s.fma(s.load(totals.as_ptr().add(at)), factor, s.load(tile_totals.as_ptr().add(at)));
                    s.store(total, totals.as_mut_ptr().add(at));
                }
            }

            for at in [tile + TILE, tile + TILE + GROUP] {
                if at < end && seen <= FEW_ROWS {
                    prefetch(s, kv.keys_hint(layer, *head, table, at), kv.shape().group_bytes());
                }
            }
            // SAFETY: as above.
            unsafe {
                let weights = weights.as_ptr();
                let mut at = 0;
                while at < padded {
                    let to = Out {
                        start: sums.as_mut_ptr().add(row0 * padded + at),
                        stride: padded,
                        then: Then::Rescale { factors: factors.as_ptr().add(row0) },
                        bias: std::ptr::null(),
                    };
                    let (pairs, stride) = (GROUP / 2, kv.shape().value_stride());
                    if at + LANES < padded && two_vectors::<S>(seen) {
                        let mut segments = [[std::ptr::null(); 2]; GROUPS];
                        for (segment, group) in segments.iter_mut().zip(groups) {
                            *segment = [group[1].add(at * 4), group[1].add((at + LANES) * 4)];
                        }
                        product::<S, K, 2>(
                            s,
                            weights,
                            seen,
                            Columns { segments: &segments[..num_groups], pairs, stride, prefetch: false },
                            to,
                        );
                        at += 2 * LANES;
                    } else {
                        let mut segments = [[std::ptr::null(); 1]; GROUPS];
                        for (segment, group) in segments.iter_mut().zip(groups) {
                            *segment = [group[1].add(at * 4)];
                        }
                        product::<S, K, 1>(
                            s,
                            weights,
                            seen,
                            Columns { segments: &segments[..num_groups], pairs, stride, prefetch: false },
                            to,
                        );
                        at += LANES;
                    }
                }
            }
        }

        let heads = attention.num_heads;
        for row in 0..rows {
            let (token, h) = (tokens.start + row / group, head * group + row % group);
            // SAFETY: these heads of these tokens are no other thread's.
            let out = unsafe { out.part((token * heads + h) * dim, dim) };
            let scale = 1.0 / totals[row];
            for (out, sum) in out.iter_mut().zip(&sums[row * padded..]) {
                *out = sum * scale;
            }
        }
    }
}

/// Whether tiles of two vectors hold enough of `rows` rows.
#[inline(always)]
fn two_vectors<S: Simd>(rows: usize) -> bool {
    S::TILE_ROWS[1] >= S::TILE_ROWS[0].min(rows)
}

#[inline(always)]
fn prefetch<S: Simd>(s: S, p: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        s.prefetch(p.wrapping_add(at));
    }
}

/// Scales the scores of positions `start..`, sets those outside `visible` to minus infinity, and returns the maximum of them and `max`.
#[inline(always)]
fn mask_and_max<S: Simd>(s: S, scores: &mut [f32], start: usize, visible: Range<usize>, scale: f32, max: f32) -> f32 {
    const LANE: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    let minus_infinity = s.splat(f32::NEG_INFINITY);
    let mut maxima = s.splat(max);
    for (scores, at) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip((start..).step_by(GROUP)) {
        // SAFETY: sixteen values each.
        unsafe {
            let mut x = s.mul(s.load(scores.as_ptr()), s.splat(scale));
            if at < visible.start || at + GROUP > visible.end {
                let lane = s.load(LANE.as_ptr());
                x = s.select_lt(lane, s.splat(visible.start.saturating_sub(at) as f32), minus_infinity, x);
                x = s.select_lt(lane, s.splat(visible.end.saturating_sub(at) as f32), x, minus_infinity);
            }
            maxima = s.max(maxima, x);
            s.store(x, scores.as_mut_ptr());
        }
    }
    s.max_lane(maxima)
}

/// Packs `e^(score - max)` as weights and returns their sum.
#[inline(always)]
fn softmax_weights<S: Simd, A: Pair>(s: S, scores: &[f32], max: f32, weights: &mut [A]) -> f32 {
    let max = s.splat(max);
    let mut sums = s.splat(0.0);
    for (scores, weights) in scores.as_chunks::<LANES>().0.iter().zip(weights.chunks_exact_mut(LANES / 2)) {
        // SAFETY: sixteen values.
        let weight = exp(s, s.sub(unsafe { s.load(scores.as_ptr()) }, max));
        sums = s.add(sums, weight);
        A::pack(&s.to_array(weight), weights);
    }
    s.sum(sums)
}
