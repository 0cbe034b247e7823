// Adds a bias to a product that the vendor's library has made. Grid x over columns, y over rows.

#include "rows.cuh"

struct BiasArgs {
    /// `[rows][cols]`
    void* x;
    const float* bias;
    u32 rows, cols;
};

namespace {

template <class T>
struct Biased {
    const BiasArgs& args;
    template <u32 N>
    DEVICE void of(u32 row, u32 column) const {
        T* x = static_cast<T*>(args.x) + u64(row) * args.cols + column;
        auto values = load<N>(x);
        auto bias = load_floats<N>(args.bias + column);
        UNROLL
        for (u32 i = 0; i < N; i++) values.at[i] = narrow<T>(to_float(values.at[i]) + bias.at[i]);
        store(x, values);
    }
};

template <class T>
DEVICE void add_bias(const BiasArgs& args) {
    each_piece<T>(args.rows, args.cols, Biased<T>{args});
}

}  // namespace

KERNEL(add_bias_f32, BiasArgs, 256, add_bias<float>)
KERNEL(add_bias_bf16, BiasArgs, 256, add_bias<bf16>)
KERNEL(add_bias_f16, BiasArgs, 256, add_bias<f16>)
