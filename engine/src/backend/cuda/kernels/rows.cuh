// Operations that do the same to each element: grid x over the columns, y over the rows, each thread 16 bytes at a time where rows allow it.
// Both axes stride, so that a grid of any size does it all.
#pragma once

#include "types.cuh"

/// Elements of 16 bytes.
template <class T>
constexpr u32 PIECE_OF = 16 / sizeof(T);

/// Calls `work.of<N>(row, column)` for every `N` neighbours of `rows` rows; `N` is 1 where `cols` is no multiple of 16 bytes of `T`.
template <class T, class Work>
DEVICE void each_piece(u32 rows, u32 cols, const Work& work) {
    constexpr u32 N = PIECE_OF<T>;
    u32 first = block_index_x() * block_threads() + thread_index(), step = grid_size_x() * block_threads();
    for (u32 row = block_index_y(); row < rows; row += grid_size_y()) {
        if (cols % N == 0) {
            for (u32 i = first; i < cols / N; i += step) work.template of<N>(row, i * N);
        } else {
            for (u32 i = first; i < cols; i += step) work.template of<1>(row, i);
        }
    }
}

/// `N` neighbours of any type, by accesses of up to 16 bytes.
template <u32 N>
DEVICE Vec<float, N> load_floats(const float* p) {
    constexpr u32 EACH = N < 4 ? N : 4;
    Vec<float, N> values;
    UNROLL
    for (u32 i = 0; i < N; i += EACH) {
        auto part = load<EACH>(p + i);
        UNROLL
        for (u32 j = 0; j < EACH; j++) values.at[i + j] = part.at[j];
    }
    return values;
}
