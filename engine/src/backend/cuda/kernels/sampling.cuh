// What choosing tokens is made of, with the CPU sampler's arithmetic to the last bit: additions and multiplications in a fixed order,
// none of them fused. NaN counts as minus infinity. A block works on one row of the vocabulary.
#pragma once

#include "reduce.cuh"

constexpr u32 SAMPLE_THREADS = 1024;
/// As the CPU sampler sums a row: chunks, each of lanes.
constexpr u32 CHUNK = 512;
constexpr u32 CHUNK_LANES = 16;
constexpr u32 MAX_CHUNKS = 1024;

/// A value and where it is; the lower place first among equals.
struct Best {
    float value;
    u32 index;
};
struct BestOf {
    static DEVICE Best of(Best a, Best b) { return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a; }
};

#if defined(TOKENFLOW_CUDA)
template <>
DEVICE Best shuffle_xor<Best>(Best best, u32 mask) {
    return {shuffle_xor(best.value, mask), shuffle_xor(best.index, mask)};
}
#endif

/// Values of a row, and their ids where some have been dropped.
struct Row {
    const float* values;
    const u32* ids;
    u32 count;
};

/// An integer that orders as the value does.
DEVICE u32 ordered(float value) {
    u32 bits = as_bits(value != value ? -INFINITE : add_rn(value, 0.0f));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// `e^x` for `x <= 0`; 0 below -87 and for NaN.
DEVICE float sampling_exp(float x) {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const float round = 12582912.0f;
    float t = add_rn(mul_rn(x, 1.44269504088896340736f), round), n = add_rn(t, -round);
    float r = add_rn(add_rn(x, -mul_rn(n, 0.6933594f)), mul_rn(n, 2.1219444e-4f));
    float p = 1.9875691e-4f;
    p = add_rn(mul_rn(p, r), 1.3981999e-3f);
    p = add_rn(mul_rn(p, r), 8.333452e-3f);
    p = add_rn(mul_rn(p, r), 4.1665796e-2f);
    p = add_rn(mul_rn(p, r), 1.6666665e-1f);
    p = add_rn(mul_rn(p, r), 0.5f);
    p = add_rn(add_rn(mul_rn(mul_rn(p, r), r), r), 1.0f);
    return x > -87.0f ? mul_rn(p, as_float((as_bits(t) << 23) + 0x3f800000u)) : 0.0f;
}

/// The largest value, the first of equals; index 0 where nothing is above minus infinity.
DEVICE Best row_best(const Row& row, BlockScratch<Best>& scratch) {
    Best best = {-INFINITE, 0};
    for (u32 i = thread_index(); i < row.count; i += block_threads()) {
        if (row.values[i] > best.value) best = {row.values[i], i};
    }
    return reduce_block<BestOf>(best, scratch);
}
DEVICE float row_max(const Row& row, BlockScratch<float>& scratch) {
    float best = -INFINITE;
    for (u32 i = thread_index(); i < row.count; i += block_threads()) best = greatest(best, row.values[i]);
    return reduce_block<Max>(best, scratch);
}

struct ChunkSums {
    double at[MAX_CHUNKS];
};

/// Sum of `e^((v - max) * scale)` of every chunk, by 16 threads each.
DEVICE void sum_chunks(const Row& row, float max, float scale, ChunkSums& sums) {
    u32 lane = thread_index() % CHUNK_LANES, chunks = div_up(row.count, CHUNK), together = block_threads() / CHUNK_LANES;
    for (u32 first = 0; first < chunks; first += together) {
        u32 chunk = first + thread_index() / CHUNK_LANES, start = chunk * CHUNK;
        u32 end = chunk < chunks ? least(start + CHUNK, row.count) : start, whole = start + (end - start) / CHUNK_LANES * CHUNK_LANES;
        float mine = 0, rest = 0;
        for (u32 i = start + lane; i < whole; i += CHUNK_LANES) {
            mine = add_rn(mine, sampling_exp(mul_rn(add_rn(row.values[i], -max), scale)));
        }
        for (u32 i = whole; i < end; i++) rest = add_rn(rest, sampling_exp(mul_rn(add_rn(row.values[i], -max), scale)));
        double sum = 0;
        for (u32 i = 0; i < CHUNK_LANES; i++) sum += double(shuffle(mine, lane_index() / CHUNK_LANES * CHUNK_LANES + i));
        if (lane == 0 && chunk < chunks) sums.at[chunk] = sum + double(rest);
    }
    sync_block();
}

/// Of `count` in order.
DEVICE double sum_in_order(const ChunkSums& sums, u32 count) {
    double sum = 0;
    for (u32 i = 0; i < count; i++) sum += sums.at[i];
    return sum;
}

/// The output function of splitmix64.
DEVICE u64 mix_bits(u64 z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
/// In [0, 1), a function of the two alone.
DEVICE double uniform(u64 seed, u64 position) {
    const u64 golden = 0x9e3779b97f4a7c15ull;
    return double(mix_bits(mix_bits(seed + golden) + golden * (position + 1)) >> 11) / 9007199254740992.0;
}
