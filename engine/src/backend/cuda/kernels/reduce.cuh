// Sums and maxima over a warp and over a block, in an order that depends on the block's size alone.
#pragma once

#include "device.cuh"

struct Sum {
    template <class T>
    static DEVICE T of(T a, T b) {
        return a + b;
    }
};
struct Max {
    template <class T>
    static DEVICE T of(T a, T b) {
        return greatest(a, b);
    }
};

/// Of `WIDTH` neighbouring lanes; every lane gets it.
template <class Op, u32 WIDTH = WARP, class T>
DEVICE T reduce_lanes(T value) {
    UNROLL
    for (u32 mask = WIDTH / 2; mask > 0; mask /= 2) value = Op::of(value, shuffle_xor(value, mask));
    return value;
}

/// What a block reduction needs in shared memory.
template <class T>
struct BlockScratch {
    T warps[1024 / 32];
};

/// Of all threads of the block; every thread gets it. All threads must call it.
template <class Op, class T>
DEVICE T reduce_block(T value, BlockScratch<T>& scratch) {
    value = reduce_lanes<Op>(value);
    // Whoever still reads an earlier result must be done.
    sync_block();
    if (lane_index() == 0) scratch.warps[warp_index()] = value;
    sync_block();
    value = scratch.warps[0];
    for (u32 i = 1; i < block_threads() / WARP; i++) value = Op::of(value, scratch.warps[i]);
    return value;
}
