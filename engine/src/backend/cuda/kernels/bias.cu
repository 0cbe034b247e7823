// Adds a bias to a product that the vendor's library has made. Elementwise: each thread strides over the whole.

#include "types.cuh"

struct BiasArgs {
    /// `[rows][cols]`
    void* x;
    const float* bias;
    u32 rows, cols;
};

namespace {

template <class T>
DEVICE void add_bias(const BiasArgs& args) {
    T* x = static_cast<T*>(args.x);
    u64 total = u64(args.rows) * args.cols;
    for (u64 i = u64(block_index_x()) * block_threads() + thread_index(); i < total; i += u64(grid_size_x()) * block_threads()) {
        x[i] = narrow<T>(to_float(x[i]) + args.bias[i % args.cols]);
    }
}

}  // namespace

KERNEL(add_bias_f32, BiasArgs, 256, add_bias<float>)
KERNEL(add_bias_bf16, BiasArgs, 256, add_bias<bf16>)
KERNEL(add_bias_f16, BiasArgs, 256, add_bias<f16>)
