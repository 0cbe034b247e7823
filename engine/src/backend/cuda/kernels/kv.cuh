// Where keys and values lie: `[block][key, value][kv head][offset in block][dimension]` for each layer, so that what one head of one
// block needs is contiguous, and a block of a layer is one piece to copy.
#pragma once

#include "types.cuh"

struct KvShape {
    u32 num_kv_heads, block_size, head_dim;
};

/// Element of dimension 0 of a key (`part` 0) or value (`part` 1).
DEVICE u64 kv_offset(const KvShape& kv, u32 block, u32 part, u32 head, u32 offset) {
    return ((u64(block) * 2 + part) * kv.num_kv_heads + head) * kv.block_size * kv.head_dim + u64(offset) * kv.head_dim;
}

/// As an element of a cache: values beyond the type's range become the greatest it has.
template <class T>
DEVICE T to_cache(float x) {
    return narrow<T>(x);
}
template <>
DEVICE f16 to_cache<f16>(float x) {
    return narrow<f16>(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}
