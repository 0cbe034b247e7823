// Products of many rows with weights in any encoding, on tensor cores: 64 rows by 64 features for each block, 32 columns at a time.
// Weights are widened to 16 bits on their way to shared memory. Sums go along the columns in order, whatever else is in the tile.
#pragma once

#include "mma.cuh"
#include "weights.cuh"

constexpr u32 TILE_THREADS = 128;
constexpr u32 TILE_ROWS = 64;
constexpr u32 TILE_FEATURES = 64;
constexpr u32 TILE_COLUMNS = 32;
constexpr u32 TILE_TEAMS = TILE_THREADS / TEAM;

/// Rows are 16 bytes longer than needed, so that matrices are loaded without bank conflicts.
template <class E>
struct TileShared {
    static constexpr u32 STRIDE = TILE_COLUMNS + 8;
    E rows[2][TILE_ROWS][STRIDE];
    E weights[2][TILE_FEATURES][STRIDE];
};

/// Brings 32 columns of the rows and of the features to shared memory; zeros beyond the last.
template <class T, class E, class Format, class Rows>
DEVICE void load_columns(const WeightArgs& weight, u32 feature0, const T* x, u32 count, const Rows& rows, u32 column,
                         u32 stage, TileShared<E>& shared) {
    constexpr u32 N = Format::COLUMNS, STEP = N < 8 ? N : 8;
    for (u32 i = thread_index(); i < TILE_ROWS * TILE_COLUMNS / STEP; i += TILE_THREADS) {
        u32 row = i / (TILE_COLUMNS / STEP), at = i % (TILE_COLUMNS / STEP) * STEP;
        Vec<E, STEP> part = {};
        if (row < count && column + at < weight.columns) {
            auto values = ::load<STEP>(x + u64(rows.x(row)) * weight.columns + column + at);
            UNROLL
            for (u32 j = 0; j < STEP; j++) part.at[j] = narrow<E>(to_float(values.at[j]));
        }
        store(&shared.rows[stage][row][at], part);
    }
    for (u32 i = thread_index(); i < TILE_FEATURES * TILE_COLUMNS / N; i += TILE_THREADS) {
        u32 feature = i / (TILE_COLUMNS / N), at = i % (TILE_COLUMNS / N) * N;
        float values[N] = {};
        if (feature0 + feature < weight.features && column + at < weight.columns) {
            Format::load(weight, feature0 + feature, column + at, values);
        }
        UNROLL
        for (u32 j = 0; j < N; j += STEP) {
            Vec<E, STEP> part;
            UNROLL
            for (u32 k = 0; k < STEP; k++) part.at[k] = narrow<E>(values[j + k]);
            store(&shared.weights[stage][feature][at + j], part);
        }
    }
}

/// `count` rows of `x`, at `rows.x(i)`, times 64 features, into rows `rows.out(i)` of `out`, which are `out_cols` long. Each team takes 16 rows.
template <class T, class E, class Out, class Format, class Rows>
DEVICE void multiply_tile(const WeightArgs& weight, const T* x, const float* bias, Out* out, u32 out_cols, u32 count, Rows rows) {
    SHARED(TileShared<E>, shared);
    constexpr u32 STRIDE = TileShared<E>::STRIDE;
    u32 feature0 = block_index_x() * TILE_FEATURES, lane = team_lane(), row0 = team_index() * 16, stage = 0;
    float sums[TILE_FEATURES / 8][4] = {};
    load_columns<T, E, Format>(weight, feature0, x, count, rows, 0, 0, shared);
    for (u32 column = 0; column < weight.columns; column += TILE_COLUMNS, stage ^= 1) {
        // Of two stages one is multiplied while the other is filled, so that one barrier is enough.
        sync_block();
        if (column + TILE_COLUMNS < weight.columns) {
            load_columns<T, E, Format>(weight, feature0, x, count, rows, column + TILE_COLUMNS, stage ^ 1, shared);
        }
        UNROLL
        for (u32 k = 0; k < TILE_COLUMNS; k += 16) {
            u32 a[4], b[4];
            load_matrices<false>(a, &shared.rows[stage][row0][0] + lane % 16 * STRIDE + k + lane / 16 * 8);
            UNROLL
            for (u32 n = 0; n < TILE_FEATURES; n += 16) {
                load_matrices<false>(b, &shared.weights[stage][n][0] + (lane / 16 * 8 + lane % 8) * STRIDE + k + lane / 8 % 2 * 8);
                mma<E>(sums[n / 8], a, b[0], b[1]);
                mma<E>(sums[n / 8 + 1], a, b[2], b[3]);
            }
        }
    }
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = row0 + lane / 4 + 8 * i;
        if (row >= count) continue;
        Out* to = out + u64(rows.out(row)) * out_cols;
        UNROLL
        for (u32 n = 0; n < TILE_FEATURES / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 2; j++) {
                u32 feature = feature0 + n * 8 + lane % 4 * 2 + j;
                if (feature < weight.features) to[feature] = narrow<Out>(bias ? sums[n][2 * i + j] + bias[feature] : sums[n][2 * i + j]);
            }
        }
    }
}
