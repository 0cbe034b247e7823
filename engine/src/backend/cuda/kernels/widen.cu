// Encoded weights as bf16, for products of many rows that cublasLt does. Grid x over features; rounding is that of bf16 once.

#include "weights.cuh"

struct WidenArgs {
    WeightArgs weight;
    /// `[features][columns]`
    void* out;
};

namespace {

template <class Out, class Format>
DEVICE void widen(const WidenArgs& args) {
    constexpr u32 N = Format::COLUMNS;
    u64 feature = block_index_x();
    Out* out = static_cast<Out*>(args.out) + feature * args.weight.columns;
    for (u32 column = thread_index() * N; column < args.weight.columns; column += block_threads() * N) {
        float values[N];
        load_weights<Format>(args.weight, feature, column, values);
        UNROLL
        for (u32 i = 0; i < N; i += 8) {
            Vec<Out, 8> part;
            UNROLL
            for (u32 j = 0; j < 8; j++) part.at[j] = narrow<Out>(values[i + j]);
            store(out + column + i, part);
        }
    }
}

}  // namespace

#define WIDEN(out, Out)                                                 \
    IF_Q8_0(KERNEL(widen_q8_0_##out, WidenArgs, 128, widen<Out, Q8_0>)) \
    IF_Q4_K(KERNEL(widen_q4_k_##out, WidenArgs, 128, widen<Out, Q4_K>)) \
    IF_Q5_K(KERNEL(widen_q5_k_##out, WidenArgs, 128, widen<Out, Q5_K>)) \
    IF_Q6_K(KERNEL(widen_q6_k_##out, WidenArgs, 128, widen<Out, Q6_K>)) \
    IF_INT4(KERNEL(widen_int4_##out, WidenArgs, 128, widen<Out, Int4>)) \
    IF_FP8(KERNEL(widen_fp8_##out, WidenArgs, 128, widen<Out, Fp8>))
IF_BF16(WIDEN(bf16, bf16))
IF_F16(WIDEN(f16, f16))
