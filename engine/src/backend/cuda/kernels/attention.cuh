// What attention on tensor cores has in common, for prompts and decoding: tiles of 64 positions on their way to shared memory, two deep, so
// that reading goes on while computing. A cache of FP8 stays FP8 on this way and is expanded, exactly, when its tile's turn comes.
#pragma once

#include "async.cuh"
#include "attention_args.cuh"
#include "mma.cuh"
#include "select.cuh"
#include "softmax.cuh"

constexpr u32 ATTENTION_THREADS = 128;
constexpr u32 ATTENTION_TEAMS = ATTENTION_THREADS / TEAM;

/// Zeroes the dimensions that heads smaller than `DIM` do not have.
template <class E, u32 STRIDE>
DEVICE void clear_padding(E (*rows)[STRIDE], u32 num_rows, u32 head_dim, u32 dim) {
    u32 width = dim - head_dim;
    for (u32 i = thread_index(); i < num_rows * width; i += block_threads()) rows[i / width][head_dim + i % width] = E{0};
}

/// Where a sequence's positions are in the cache of one head.
struct Context {
    const void* cache;
    const u32* table;
    KvShape kv;
    u32 head;
    /// Positions outside are zeros: whatever lies in the cache there may not even be a number.
    u32 first, end;

    /// Element of dimension 0 of the key at a position; `values` further is its value.
    DEVICE u64 key(u32 position) const { return kv_offset(kv, table[position / kv.block_size], 0, head, position % kv.block_size); }
    DEVICE u64 values() const { return u64(kv.num_kv_heads) * kv.block_size * kv.head_dim; }
};

/// Begins to bring 64 positions from `start` on to `keys` and `values`, rows of `STRIDE` elements, 16 bytes at a time.
template <class Kv, u32 STRIDE>
DEVICE void load_positions(const Context& context, u32 start, Kv (*keys)[STRIDE], Kv (*values)[STRIDE]) {
    constexpr u32 N = 16 / sizeof(Kv);
    const Kv* cache = static_cast<const Kv*>(context.cache);
    u32 pieces = context.kv.head_dim / N;
    for (u32 i = thread_index(); i < TILE * pieces; i += ATTENTION_THREADS) {
        u32 row = i / pieces, column = i % pieces * N, position = start + row;
        Kv *key = keys[row] + column, *value = values[row] + column;
        if (position < context.first || position >= context.end) {
            store<N>(key, Vec<Kv, N>{});
            store<N>(value, Vec<Kv, N>{});
            continue;
        }
        const Kv* from = cache + context.key(position) + column;
        copy_async_16(key, from);
        copy_async_16(value, from + context.values());
    }
}

/// Tiles of keys and values in shared memory, in the type that products are in. Rows are 16 bytes longer than needed, so that matrices are
/// loaded without bank conflicts.
template <class Kv, u32 DIM>
struct Tiles {
    typedef Kv E;
    static constexpr u32 STRIDE = DIM + 8;
    alignas(16) E stages[2][2][TILE][STRIDE];

    DEVICE void clear(u32 head_dim) { clear_padding<E, STRIDE>(stages[0][0], 4 * TILE, head_dim, DIM); }
    DEVICE void load(const Context& context, u32 start, u32 stage) {
        load_positions<Kv, STRIDE>(context, start, stages[stage][0], stages[stage][1]);
    }
    /// After a barrier that follows the load's arrival.
    DEVICE void open(u32, u32) {}
    DEVICE const E* keys(u32 stage) const { return stages[stage][0][0]; }
    DEVICE const E* values(u32 stage) const { return stages[stage][1][0]; }
};

template <u32 DIM>
struct Tiles<e4m3, DIM> {
    typedef bf16 E;
    static constexpr u32 STRIDE = DIM + 8;
    alignas(16) e4m3 stages[2][2][TILE][DIM];
    alignas(16) E wide[2][TILE][STRIDE];

    DEVICE void clear(u32 head_dim) { clear_padding<E, STRIDE>(wide[0], 2 * TILE, head_dim, DIM); }
    DEVICE void load(const Context& context, u32 start, u32 stage) {
        load_positions<e4m3, DIM>(context, start, stages[stage][0], stages[stage][1]);
    }
    DEVICE void open(u32 stage, u32 head_dim) {
        u32 pieces = head_dim / 8;
        for (u32 i = thread_index(); i < 2 * TILE * pieces; i += ATTENTION_THREADS) {
            u32 row = i / pieces, column = i % pieces * 8;
            auto pairs = ::load<4>(reinterpret_cast<const u16*>(stages[stage][0][row] + column));
            Vec<u32, 4> expanded;
            UNROLL
            for (u32 j = 0; j < 4; j++) expanded.at[j] = expand_pair(pairs.at[j]);
            store(reinterpret_cast<u32*>(wide[0][row] + column), expanded);
        }
        sync_block();
    }
    DEVICE const E* keys(u32) const { return wide[0][0]; }
    DEVICE const E* values(u32) const { return wide[1][0]; }
};
