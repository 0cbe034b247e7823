// What all attention kernels take.
#pragma once

#include "kv.cuh"

struct AttentionArgs {
    /// `[tokens][q heads | k heads | v heads]`; queries are rotated, keys and values are read from the cache.
    const void* qkv;
    /// The layer's cache.
    const void* cache;
    /// `[tokens][num_heads][head_dim]`
    void* out;
    const u32* positions;
    /// Per sequence, plus one: its tokens.
    const u32* query_start;
    const u32* block_tables;
    const u32* table_start;
    /// Decode: rows of (token, its sequence). Prefill: for each grid x, (sequence, tile of query rows).
    const u32* work;
    /// Decode: (row of work, split), by row; and for each row where its own begin, then their number. Made by `attention_items`.
    const u32* items;
    const u32* item_start;
    /// Decode, where a row has several splits: `[items][num_heads][head_dim]` weighted sums, and pairs of their maximum and total.
    float* partial;
    float* partial_state;
    KvShape kv;
    u32 num_heads;
    /// Rows of work of decode.
    u32 num_rows;
    /// Positions of a split, the same in all kernels and steps; a multiple of `TILE`.
    u32 split_positions;
    float scale;
    /// 0 where scores are not capped.
    float soft_cap;
    /// Number of latest positions a token sees; 0 for all.
    u32 window;
};

/// Positions of a tile. Tiles and splits begin at multiples of their size, so that a token's result does not depend on what else is in
/// the batch, nor on which kernel makes it.
constexpr u32 TILE = 64;

/// The first position that a token sees.
DEVICE u32 first_seen(u32 position, u32 window) { return window > 0 && position >= window ? position - window + 1 : 0; }
