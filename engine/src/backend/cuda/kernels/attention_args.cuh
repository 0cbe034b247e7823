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
    /// Decode: for each grid x, (token, its sequence). Prefill: (sequence, tile of query rows).
    const u32* work;
    /// Decode with several splits: `[work][num_heads][splits][head_dim]` weighted sums, and their maxima and totals.
    float* partial;
    float* partial_state;
    KvShape kv;
    u32 num_heads;
    /// Positions of a split; a multiple of `TILE`.
    u32 split_positions;
    /// Splits in `partial`; 1 if results go to `out` at once.
    u32 num_splits;
    float scale;
    /// 0 where scores are not capped.
    float soft_cap;
    /// Number of latest positions a token sees; 0 for all.
    u32 window;
};

/// The first position that a token sees.
DEVICE u32 first_seen(u32 position, u32 window) { return window > 0 && position >= window ? position - window + 1 : 0; }
