// The product of a few rows with a weight matrix, bound by reading the weights once: every warp takes two features and all columns,
// its lanes neighbouring columns. What is summed in which order depends on neither the number of rows nor the place of a row.
#pragma once

#include "reduce.cuh"
#include "weights.cuh"

constexpr u32 FEW_ROWS_THREADS = 128;
constexpr u32 WARP_FEATURES = 2;
constexpr u32 BLOCK_FEATURES = FEW_ROWS_THREADS / WARP * WARP_FEATURES;

/// Up to `M` rows of `x`, at `rows.x(i)`, times features `feature0..`, into rows `rows.out(i)` of `out`, which are `out_cols` long.
template <class T, class Out, class Format, u32 M, class Rows>
DEVICE void multiply_few_rows(const WeightArgs& weight, const T* x, const float* bias, Out* out, u32 out_cols, u32 count, Rows rows) {
    constexpr u32 N = Format::COLUMNS, STEP = N < 8 ? N : 8;
    u32 feature0 = (block_index_x() * (FEW_ROWS_THREADS / WARP) + warp_index()) * WARP_FEATURES;
    if (feature0 >= weight.features) return;
    u32 num_features = least(weight.features - feature0, WARP_FEATURES);
    float sums[WARP_FEATURES][M] = {};
    for (u32 column = lane_index() * N; column < weight.columns; column += WARP * N) {
        float values[WARP_FEATURES][N];
        UNROLL
        for (u32 f = 0; f < WARP_FEATURES; f++) {
            // The last feature stands in for one that is not there.
            load_weights<Format>(weight, feature0 + least(f, num_features - 1), column, values[f]);
        }
        UNROLL
        for (u32 m = 0; m < M; m++) {
            if (m >= count) continue;
            const T* row = x + u64(rows.x(m)) * weight.columns + column;
            UNROLL
            for (u32 i = 0; i < N; i += STEP) {
                auto part = ::load<STEP>(row + i);
                UNROLL
                for (u32 j = 0; j < STEP; j++) {
                    UNROLL
                    for (u32 f = 0; f < WARP_FEATURES; f++) sums[f][m] += to_float(part.at[j]) * values[f][i + j];
                }
            }
        }
    }
    UNROLL
    for (u32 m = 0; m < M; m++) {
        if (m >= count) continue;
        UNROLL
        for (u32 f = 0; f < WARP_FEATURES; f++) {
            float sum = reduce_lanes<Sum>(sums[f][m]);
            u32 feature = feature0 + f;
            if (lane_index() != 0 || f >= num_features) continue;
            out[u64(rows.out(m)) * out_cols + feature] = narrow<Out>(bias ? sum + bias[feature] : sum);
        }
    }
}
