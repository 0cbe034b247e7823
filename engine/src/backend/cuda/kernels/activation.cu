// Activations, alone and gated, and the cap of logits. Elementwise: each thread strides over the whole.

#include "activation.cuh"
#include "select.cuh"
#include "types.cuh"

struct ActivationArgs {
    /// `[rows][cols]`, or `[rows][2 * cols]` with gates before what they gate.
    const void* x;
    /// `[rows][cols]`; may be `x` where nothing is gated.
    void* out;
    u32 rows, cols;
    /// Soft cap only.
    float cap;
};

namespace {

template <class T, class F>
DEVICE void gated(const ActivationArgs& args) {
    const T* x = static_cast<const T*>(args.x);
    T* out = static_cast<T*>(args.out);
    u64 total = u64(args.rows) * args.cols;
    for (u64 i = u64(block_index_x()) * block_threads() + thread_index(); i < total; i += u64(grid_size_x()) * block_threads()) {
        const T* row = x + i / args.cols * 2 * args.cols + i % args.cols;
        out[i] = narrow<T>(F::of(to_float(row[0])) * to_float(row[args.cols]));
    }
}

template <class T, class F>
DEVICE void plain(const ActivationArgs& args) {
    const T* x = static_cast<const T*>(args.x);
    T* out = static_cast<T*>(args.out);
    u64 total = u64(args.rows) * args.cols;
    for (u64 i = u64(block_index_x()) * block_threads() + thread_index(); i < total; i += u64(grid_size_x()) * block_threads()) {
        out[i] = narrow<T>(F::of(to_float(x[i])));
    }
}

DEVICE void cap_logits(const ActivationArgs& args) {
    const float* x = static_cast<const float*>(args.x);
    float* out = static_cast<float*>(args.out);
    u64 total = u64(args.rows) * args.cols;
    for (u64 i = u64(block_index_x()) * block_threads() + thread_index(); i < total; i += u64(grid_size_x()) * block_threads()) {
        out[i] = tanhf(x[i] / args.cap) * args.cap;
    }
}

}  // namespace

#define ACTIVATIONS(name, T)                                           \
    KERNEL(gated_silu_##name, ActivationArgs, 256, gated<T, Silu>)          \
    KERNEL(gated_gelu_##name, ActivationArgs, 256, gated<T, Gelu>)          \
    KERNEL(gated_gelu_tanh_##name, ActivationArgs, 256, gated<T, GeluTanh>) \
    KERNEL(silu_##name, ActivationArgs, 256, plain<T, Silu>)                \
    KERNEL(gelu_##name, ActivationArgs, 256, plain<T, Gelu>)                \
    KERNEL(gelu_tanh_##name, ActivationArgs, 256, plain<T, GeluTanh>)
IF_F32(ACTIVATIONS(f32, float))
IF_BF16(ACTIVATIONS(bf16, bf16))
IF_F16(ACTIVATIONS(f16, f16))
KERNEL(soft_cap, ActivationArgs, 256, cap_logits)
