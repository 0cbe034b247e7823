// Activations, alone and gated, and the cap of logits. Grid x over columns, y over rows.

#include "activation.cuh"
#include "rows.cuh"
#include "select.cuh"

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

/// `F` of each value.
template <class T, class F>
struct Alone {
    const ActivationArgs& args;
    F f;
    template <u32 N>
    DEVICE void of(u32 row, u32 column) const {
        u64 at = u64(row) * args.cols + column;
        auto values = load<N>(static_cast<const T*>(args.x) + at);
        UNROLL
        for (u32 i = 0; i < N; i++) values.at[i] = narrow<T>(f.of(to_float(values.at[i])));
        store(static_cast<T*>(args.out) + at, values);
    }
};

/// `F` of each gate, times what it gates.
template <class T, class F>
struct Gated {
    const ActivationArgs& args;
    template <u32 N>
    DEVICE void of(u32 row, u32 column) const {
        const T* x = static_cast<const T*>(args.x) + u64(row) * 2 * args.cols + column;
        auto gates = load<N>(x), values = load<N>(x + args.cols);
        UNROLL
        for (u32 i = 0; i < N; i++) values.at[i] = narrow<T>(F::of(to_float(gates.at[i])) * to_float(values.at[i]));
        store(static_cast<T*>(args.out) + u64(row) * args.cols + column, values);
    }
};

struct Cap {
    float cap;
    DEVICE float of(float x) const { return tanhf(x / cap) * cap; }
};

template <class T, class F>
DEVICE void gated(const ActivationArgs& args) {
    each_piece<T>(args.rows, args.cols, Gated<T, F>{args});
}
template <class T, class F>
DEVICE void plain(const ActivationArgs& args) {
    each_piece<T>(args.rows, args.cols, Alone<T, F>{args, {}});
}
DEVICE void cap_logits(const ActivationArgs& args) { each_piece<float>(args.rows, args.cols, Alone<float, Cap>{args, {args.cap}}); }

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
