// What both ways of multiplying rows that visit experts take.
#pragma once

#include "weights.cuh"

/// The choice of a row that stands for none: padding visits no expert.
constexpr u32 NO_EXPERT = 0xffffffffu;

struct ExpertsArgs {
    /// One for each expert, all of one shape.
    const WeightArgs* weights;
    /// `[rows][columns]` with `sorted`, or `[visits][columns]` in the order of the tiles.
    const void* x;
    /// The visit at each place, of `top_k` for each row; null where `x` is in this order already.
    const u32* sorted;
    /// (expert, first place, number of places)
    const u32* tiles;
    /// `[visits][out_cols]`
    void* out;
    u32 top_k, out_cols;
};

/// Rows of a tile of visits.
struct VisitRows {
    const u32* sorted;
    u32 first, top_k;
    DEVICE u32 x(u32 i) const { return sorted ? sorted[first + i] / top_k : first + i; }
    DEVICE u32 out(u32 i) const { return first + i; }
};
