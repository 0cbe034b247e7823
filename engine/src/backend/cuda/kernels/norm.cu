// RMS norm and layer norm of the residual stream, fused with adding what the layer before it made.
// One block for each row. The stream is f32, so that what many layers add up to is not rounded at each.

#include "reduce.cuh"
#include "select.cuh"
#include "types.cuh"

struct NormArgs {
    /// `[rows][cols]`: the residual stream, changed only where `delta` is given; or values of the output's type.
    void* x;
    /// `[rows][cols]` of the output's type, or null; only with the residual stream.
    const void* delta;
    const float* weight;
    /// Layer norm only.
    const float* bias;
    void* out;
    u32 cols;
    float eps;
};

namespace {

/// `V` neighbours at a time.
template <class X, class T, u32 V, bool LAYER>
DEVICE void norm_row(const NormArgs& args) {
    SHARED(BlockScratch<float>, scratch);
    u64 row = u64(block_index_x()) * args.cols;
    X* x = static_cast<X*>(args.x) + row;
    const T* delta = static_cast<const T*>(args.delta);
    float squares = 0, sum = 0;
    for (u32 i = thread_index() * V; i < args.cols; i += block_threads() * V) {
        auto values = load<V>(x + i);
        if (delta) {
            auto add = load<V>(delta + row + i);
            UNROLL
            for (u32 j = 0; j < V; j++) values.at[j] = narrow<X>(to_float(values.at[j]) + to_float(add.at[j]));
            store(x + i, values);
        }
        UNROLL
        for (u32 j = 0; j < V; j++) {
            float value = to_float(values.at[j]);
            squares += value * value;
            sum += value;
        }
    }
    float mean = 0;
    if (LAYER) {
        // The squares of what is left, not the difference of two large numbers.
        mean = reduce_block<Sum>(sum, scratch) / float(args.cols);
        squares = 0;
        for (u32 i = thread_index(); i < args.cols / V; i += block_threads()) {
            auto values = load<V>(x + i * V);
            UNROLL
            for (u32 j = 0; j < V; j++) squares += (to_float(values.at[j]) - mean) * (to_float(values.at[j]) - mean);
        }
    }
    float scale = 1.0f / sqrtf(reduce_block<Sum>(squares, scratch) / float(args.cols) + args.eps);
    T* out = static_cast<T*>(args.out) + row;
    for (u32 i = thread_index() * V; i < args.cols; i += block_threads() * V) {
        auto values = load<V>(x + i);
        auto weight = load<V>(args.weight + i);
        Vec<T, V> result;
        UNROLL
        for (u32 j = 0; j < V; j++) {
            float value = (to_float(values.at[j]) - mean) * scale * weight.at[j];
            if (LAYER) value += args.bias[i + j];
            result.at[j] = narrow<T>(value);
        }
        store(out + i, result);
    }
}

template <class X, class T, bool LAYER>
DEVICE void norm(const NormArgs& args) {
    if (args.cols % 4 == 0) norm_row<X, T, 4, LAYER>(args);
    else norm_row<X, T, 1, LAYER>(args);
}

}  // namespace

// Of the residual stream, and of values of the output's own type.
#define NORMS(t, T)                                                    \
    KERNEL(rms_norm_##t, NormArgs, 1024, norm<float, T, false>)        \
    KERNEL(layer_norm_##t, NormArgs, 1024, norm<float, T, true>)
#define OWN_NORMS(t, T)                                                \
    KERNEL(rms_norm_own_##t, NormArgs, 1024, norm<T, T, false>)        \
    KERNEL(layer_norm_own_##t, NormArgs, 1024, norm<T, T, true>)
IF_F32(NORMS(f32, float))
IF_BF16(NORMS(bf16, bf16))
IF_F16(NORMS(f16, f16))
IF_BF16(OWN_NORMS(bf16, bf16))
IF_F16(OWN_NORMS(f16, f16))
