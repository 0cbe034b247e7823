// Products of each expert with the many rows that visit it, on tensor cores. Grid x over tiles of features, y over tiles of 64 visits.

#include "moe.cuh"
#include "tile.cuh"

namespace {

template <class T, class Format>
DEVICE void multiply_visit_tile(const ExpertsArgs& args) {
    const u32* tile = args.tiles + 3 * block_index_y();
    if (tile[2] == 0) return;
    multiply_tile<T, T, T, Format>(args.weights[tile[0]], static_cast<const T*>(args.x), nullptr, static_cast<T*>(args.out), tile[2],
                                   VisitRows{args.sorted, tile[1], args.top_k});
}

}  // namespace

#define EXPERT_TILES(t, T)                                                                         \
    KERNEL(moe_product_##t##_##t##_tile, ExpertsArgs, TILE_THREADS, multiply_visit_tile<T, Plain<T, 8>>) \
    KERNEL(moe_product_##t##_q8_0_tile, ExpertsArgs, TILE_THREADS, multiply_visit_tile<T, Q8_0>)         \
    KERNEL(moe_product_##t##_q4_k_tile, ExpertsArgs, TILE_THREADS, multiply_visit_tile<T, Q4_K>)         \
    KERNEL(moe_product_##t##_int4_tile, ExpertsArgs, TILE_THREADS, multiply_visit_tile<T, Int4>)         \
    KERNEL(moe_product_##t##_fp8_tile, ExpertsArgs, TILE_THREADS, multiply_visit_tile<T, Fp8>)
EXPERT_TILES(bf16, bf16)
EXPERT_TILES(f16, f16)
