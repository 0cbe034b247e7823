// Linear layers for many rows with encoded weights, and wherever there is no cublasLt. Grid x over tiles of features, y over tiles of rows.

#include "linear.cuh"
#include "tile.cuh"

namespace {

template <class T, class Out, class Format>
DEVICE void linear_tile(const LinearArgs& args) {
    u32 first = block_index_y() * TILE_ROWS;
    multiply_tile<T, Out, Format>(args.weight, static_cast<const T*>(args.x), args.bias, static_cast<Out*>(args.out), args.out_cols,
                                     least(args.rows - first, TILE_ROWS), DenseRows{first});
}

}  // namespace

#define LINEAR_TILE(t, T, out, Out, format, ...) \
    KERNEL(linear_##t##_##format##_##out##_tile, LinearArgs, TILE_THREADS, linear_tile<T, Out, __VA_ARGS__>)
#define LINEAR_TILES(t, T, out, Out)                 \
    LINEAR_TILE(t, T, out, Out, t, Plain<T, 8>)      \
    IF_Q8_0(LINEAR_TILE(t, T, out, Out, q8_0, Q8_0)) \
    IF_Q4_K(LINEAR_TILE(t, T, out, Out, q4_k, Q4_K)) \
    IF_Q5_K(LINEAR_TILE(t, T, out, Out, q5_k, Q5_K)) \
    IF_Q6_K(LINEAR_TILE(t, T, out, Out, q6_k, Q6_K)) \
    IF_INT4(LINEAR_TILE(t, T, out, Out, int4, Int4)) \
    IF_FP8(LINEAR_TILE(t, T, out, Out, fp8, Fp8))    \
    IF_ODD(LINEAR_TILE(t, T, out, Out, t##_odd, Plain<T, 1>))
IF_BF16(LINEAR_TILES(bf16, bf16, bf16, bf16) LINEAR_TILES(bf16, bf16, f32, float))
IF_F16(LINEAR_TILES(f16, f16, f16, f16) LINEAR_TILES(f16, f16, f32, float))
