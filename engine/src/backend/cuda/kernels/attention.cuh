// What attention kernels have in common: 16 query rows of one KV head against a tile of positions, on tensor cores, with the running
// softmax of Flash Attention. Keys and values are brought to shared memory two tiles deep, so that reading goes on while computing.
#pragma once

#include "async.cuh"
#include "attention_args.cuh"
#include "mma.cuh"

/// Positions of a tile. Tiles begin at multiples of it, so that a token's result does not depend on what else is in the batch.
constexpr u32 TILE = 64;
constexpr u32 ATTENTION_THREADS = 128;
constexpr u32 ATTENTION_TEAMS = ATTENTION_THREADS / TEAM;
constexpr float LOG2_E = 1.44269504f;

/// In the type that products are in: FP8 is expanded to bf16, exactly.
template <class Kv>
struct Operand {
    typedef Kv type;
};
template <>
struct Operand<e4m3> {
    typedef bf16 type;
};

/// Shared memory of a block: query rows, then two stages of keys and values. Rows are 16 bytes longer than needed, so that matrices
/// are loaded without bank conflicts.
template <class E, u32 DIM, u32 ROWS>
struct AttentionShared {
    static constexpr u32 STRIDE = DIM + 8;
    E queries[ROWS][STRIDE];
    E keys[2][TILE][STRIDE];
    E values[2][TILE][STRIDE];
};

/// Zeroes the dimensions that heads smaller than `DIM` do not have.
template <class E, u32 STRIDE, u32 DIM>
DEVICE void clear_padding(E (*rows)[STRIDE], u32 num_rows, u32 head_dim) {
    u32 width = DIM - head_dim;
    for (u32 i = thread_index(); i < num_rows * width; i += block_threads()) rows[i / width][head_dim + i % width] = E{0};
}

/// Begins to bring positions `start..start + TILE` of a sequence to shared memory; zeros where they are not in `first..end`, as whatever
/// lies in the cache there may not even be a number.
template <class Kv, class E, u32 STRIDE>
DEVICE void load_tile(const AttentionArgs& args, const u32* table, u32 head, u32 start, u32 first, u32 end, E (*keys)[STRIDE], E (*values)[STRIDE]) {
    const Kv* cache = static_cast<const Kv*>(args.cache);
    u32 pieces = args.kv.head_dim / 8;
    for (u32 i = thread_index(); i < TILE * pieces; i += block_threads()) {
        u32 row = i / pieces, column = i % pieces * 8, position = start + row;
        E *key = keys[row] + column, *value = values[row] + column;
        if (position < first || position >= end) {
            store<8>(key, Vec<E, 8>{});
            store<8>(value, Vec<E, 8>{});
            continue;
        }
        u32 block = table[position / args.kv.block_size], offset = position % args.kv.block_size;
        const Kv* from = cache + kv_offset(args.kv, block, 0, head, offset) + column;
        const Kv* from_value = cache + kv_offset(args.kv, block, 1, head, offset) + column;
        if constexpr (sizeof(Kv) == 2) {
            copy_async_16(key, from);
            copy_async_16(value, from_value);
        } else {
            auto narrow_key = load<8>(from), narrow_value = load<8>(from_value);
            Vec<E, 8> wide_key, wide_value;
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                wide_key.at[j] = narrow<E>(to_float(narrow_key.at[j]));
                wide_value.at[j] = narrow<E>(to_float(narrow_value.at[j]));
            }
            store(key, wide_key);
            store(value, wide_value);
        }
    }
}

/// 16 rows of queries as one team sees them: rows `lane / 4` and 8 more.
template <class E, u32 DIM>
struct AttentionRows {
    static constexpr u32 STRIDE = DIM + 8;
    /// Weighted sums of values, 8 dimensions each.
    float sums[DIM / 8][4];
    /// Greatest score so far, in units of ln 2, and this lane's part of the sum of weights relative to it.
    float maximum[2], total[2];

    DEVICE void begin() {
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) sums[n][j] = 0;
        }
        maximum[0] = maximum[1] = -INFINITE;
        total[0] = total[1] = 0;
    }

    /// Takes in `POSITIONS` positions from `start` on. Row i sees `seen_from[i] <= position < seen_to[i]`.
    template <u32 POSITIONS>
    DEVICE void add(const E* queries, const E* keys, const E* values, u32 start, const u32 (&seen_from)[2], const u32 (&seen_to)[2],
                    float scale, float soft_cap) {
        u32 lane = team_lane();
        float scores[POSITIONS / 8][4];
        UNROLL
        for (u32 n = 0; n < POSITIONS / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) scores[n][j] = 0;
        }
        UNROLL
        for (u32 d = 0; d < DIM; d += 16) {
            u32 a[4], b[4];
            load_matrices<false>(a, queries + lane % 16 * STRIDE + d + lane / 16 * 8);
            UNROLL
            for (u32 n = 0; n < POSITIONS; n += 16) {
                load_matrices<false>(b, keys + (n + lane / 16 * 8 + lane % 8) * STRIDE + d + lane / 8 % 2 * 8);
                mma<E>(scores[n / 8], a, b[0], b[1]);
                mma<E>(scores[n / 8 + 1], a, b[2], b[3]);
            }
        }

        float best[2] = {-INFINITE, -INFINITE};
        UNROLL
        for (u32 n = 0; n < POSITIONS / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) {
                u32 position = start + n * 8 + lane % 4 * 2 + j % 2;
                float score = scores[n][j] * scale;
                if (soft_cap > 0) score = tanhf(score / soft_cap) * soft_cap;
                bool seen = position >= seen_from[j / 2] && position < seen_to[j / 2];
                scores[n][j] = seen ? score * LOG2_E : -INFINITE;
                best[j / 2] = greatest(best[j / 2], scores[n][j]);
            }
        }
        float factor[2], base[2];
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            best[i] = greatest(best[i], shuffle_xor(best[i], 1));
            best[i] = greatest(best[i], shuffle_xor(best[i], 2));
            best[i] = greatest(best[i], maximum[i]);
            // A row that has seen nothing yet must not become NaN.
            base[i] = best[i] == -INFINITE ? 0 : best[i];
            factor[i] = exp2f(maximum[i] - base[i]);
            maximum[i] = best[i];
            total[i] *= factor[i];
        }
        UNROLL
        for (u32 n = 0; n < POSITIONS / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) {
                scores[n][j] = exp2f(scores[n][j] - base[j / 2]);
                total[j / 2] += scores[n][j];
            }
        }
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) sums[n][j] *= factor[j / 2];
        }
        UNROLL
        for (u32 p = 0; p < POSITIONS; p += 16) {
            u32 a[4], b[4];
            UNROLL
            for (u32 j = 0; j < 4; j++) a[j] = pack_pair<E>(scores[p / 8 + j / 2][j % 2 * 2], scores[p / 8 + j / 2][j % 2 * 2 + 1]);
            UNROLL
            for (u32 d = 0; d < DIM; d += 16) {
                load_matrices<true>(b, values + (p + lane / 8 % 2 * 8 + lane % 8) * STRIDE + d + lane / 16 * 8);
                mma<E>(sums[d / 8], a, b[0], b[1]);
                mma<E>(sums[d / 8 + 1], a, b[2], b[3]);
            }
        }
    }

    /// Adds up the lanes' parts of the totals.
    DEVICE void finish() {
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            total[i] += shuffle_xor(total[i], 1);
            total[i] += shuffle_xor(total[i], 2);
        }
    }
};
