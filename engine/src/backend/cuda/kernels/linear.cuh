// What both ways of multiplying rows of activations take: few at a time, or in tiles.
#pragma once

#include "weights.cuh"

struct LinearArgs {
    WeightArgs weight;
    /// `[rows][columns]`
    const void* x;
    /// Null for none.
    const float* bias;
    /// `[rows][out_cols]`; at least `features` wide, as each part of a stacked matrix writes its own columns.
    void* out;
    u32 rows, out_cols;
};

/// Rows one after the other.
struct DenseRows {
    u32 first;
    DEVICE u32 x(u32 i) const { return first + i; }
    DEVICE u32 out(u32 i) const { return first + i; }
};
