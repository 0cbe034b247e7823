// Linear layers for a few rows: decoding, and whatever cublasLt does not multiply. Grid x over features, y over tiles of `M` rows.

#include "few_rows.cuh"
#include "linear.cuh"

namespace {

template <class T, class Out, class Format, u32 M>
DEVICE void linear(const LinearArgs& args) {
    u32 first = block_index_y() * M;
    multiply_few_rows<T, Out, Format, M>(args.weight, static_cast<const T*>(args.x), args.bias, static_cast<Out*>(args.out), args.out_cols,
                                         least(args.rows - first, M), DenseRows{first});
}

}  // namespace

#define LINEAR(t, T, out, Out, format, ...)                                                                 \
    KERNEL_OF(linear_##t##_##format##_##out##_1, LinearArgs, FEW_ROWS_THREADS, sizeof(T) == 4 ? 2 : 3, linear<T, Out, __VA_ARGS__, 1>) \
    KERNEL_OF(linear_##t##_##format##_##out##_8, LinearArgs, FEW_ROWS_THREADS, sizeof(T) == 4 ? 2 : 3, linear<T, Out, __VA_ARGS__, 8>)
#define LINEARS(t, T, out, Out)                 \
    LINEAR(t, T, out, Out, t, Plain<T, 8>)      \
    IF_Q8_0(LINEAR(t, T, out, Out, q8_0, Q8_0)) \
    IF_Q4_K(LINEAR(t, T, out, Out, q4_k, Q4_K)) \
    IF_Q5_K(LINEAR(t, T, out, Out, q5_k, Q5_K)) \
    IF_Q6_K(LINEAR(t, T, out, Out, q6_k, Q6_K)) \
    IF_INT4(LINEAR(t, T, out, Out, int4, Int4)) \
    IF_FP8(LINEAR(t, T, out, Out, fp8, Fp8))    \
    IF_ODD(LINEAR(t, T, out, Out, t##_odd, Plain<T, 1>))
IF_BF16(LINEARS(bf16, bf16, bf16, bf16) LINEARS(bf16, bf16, f32, float))
IF_F16(LINEARS(f16, f16, f16, f16) LINEARS(f16, f16, f32, float))
IF_F32(LINEARS(f32, float, f32, float))
// 16-bit weights need not be widened for activations in f32.
IF_F32(LINEAR(f32, float, f32, float, bf16, Plain<bf16, 8>) LINEAR(f32, float, f32, float, f16, Plain<f16, 8>))
