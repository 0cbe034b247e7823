// What is added to the residual stream without a norm behind it, and activations as f32, for what reads only these.
// Elementwise: each thread strides over the whole.

#include "select.cuh"
#include "types.cuh"

struct StreamArgs {
    float* x;
    /// Of as many elements.
    const void* from;
    u64 total;
};

namespace {

template <class T, bool ADD>
DEVICE void take(const StreamArgs& args) {
    const T* from = static_cast<const T*>(args.from);
    for (u64 i = u64(block_index_x()) * block_threads() + thread_index(); i < args.total; i += u64(grid_size_x()) * block_threads()) {
        float value = to_float(from[i]);
        args.x[i] = ADD ? args.x[i] + value : value;
    }
}

}  // namespace

#define STREAM(t, T)                                \
    KERNEL(add_##t, StreamArgs, 256, take<T, true>) \
    KERNEL(to_f32_##t, StreamArgs, 256, take<T, false>)
IF_F32(STREAM(f32, float))
IF_BF16(STREAM(bf16, bf16))
IF_F16(STREAM(f16, f16))
