// Linear layers for many rows with encoded weights, and wherever there is no cublasLt. Grid x over tiles of features, y over tiles of rows.

#include "linear.cuh"
#include "tile.cuh"

namespace {

template <class T, class E, class Out, class Format>
DEVICE void linear_tile(const LinearArgs& args) {
    u32 first = block_index_y() * TILE_ROWS;
    multiply_tile<T, E, Out, Format>(args.weight, static_cast<const T*>(args.x), args.bias, static_cast<Out*>(args.out),
                                     least(args.rows - first, TILE_ROWS), DenseRows{first});
}

}  // namespace

#define LINEAR_TILES(t, T)                                                               \
    KERNEL(linear_##t##_##t##_##t##_tile, LinearArgs, TILE_THREADS, linear_tile<T, T, T, Plain<T, 8>>) \
    KERNEL(linear_##t##_##t##_f32_tile, LinearArgs, TILE_THREADS, linear_tile<T, T, float, Plain<T, 8>>) \
    KERNEL(linear_##t##_q8_0_##t##_tile, LinearArgs, TILE_THREADS, linear_tile<T, T, T, Q8_0>)          \
    KERNEL(linear_##t##_q4_k_##t##_tile, LinearArgs, TILE_THREADS, linear_tile<T, T, T, Q4_K>)          \
    KERNEL(linear_##t##_int4_##t##_tile, LinearArgs, TILE_THREADS, linear_tile<T, T, T, Int4>)          \
    KERNEL(linear_##t##_fp8_##t##_tile, LinearArgs, TILE_THREADS, linear_tile<T, T, T, Fp8>)
LINEAR_TILES(bf16, bf16)
LINEAR_TILES(f16, f16)
KERNEL(linear_bf16_bf16_odd_bf16_tile, LinearArgs, TILE_THREADS, linear_tile<bf16, bf16, bf16, Plain<bf16, 1>>)
