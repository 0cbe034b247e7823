// Products of each expert with the many rows that visit it, on tensor cores. Grid x over tiles of features, y over tiles of 64 visits.

#include "moe.cuh"
#include "tile.cuh"

namespace {

template <class T, class Format>
DEVICE void multiply_visit_tile(const ExpertsArgs& args) {
    const u32* tile = args.tiles + 3 * block_index_y();
    if (tile[2] == 0) return;
    multiply_tile<T, T, Format>(args.weights[tile[0]], static_cast<const T*>(args.x), nullptr, static_cast<T*>(args.out), args.out_cols, tile[2],
                                   VisitRows{args.sorted, tile[1], args.top_k});
}

}  // namespace

#define EXPERT_TILE(t, T, format, ...) \
    KERNEL_OF(moe_product_##t##_##format##_tile, ExpertsArgs, TILE_THREADS, 3, multiply_visit_tile<T, __VA_ARGS__>)
#define EXPERT_TILES(t, T)                 \
    EXPERT_TILE(t, T, t, Plain<T, 8>)      \
    IF_Q8_0(EXPERT_TILE(t, T, q8_0, Q8_0)) \
    IF_Q4_K(EXPERT_TILE(t, T, q4_k, Q4_K)) \
    IF_Q5_K(EXPERT_TILE(t, T, q5_k, Q5_K)) \
    IF_Q6_K(EXPERT_TILE(t, T, q6_k, Q6_K)) \
    IF_INT4(EXPERT_TILE(t, T, int4, Int4)) \
    IF_FP8(EXPERT_TILE(t, T, fp8, Fp8))
IF_BF16(EXPERT_TILES(bf16, bf16))
IF_F16(EXPERT_TILES(f16, f16))
