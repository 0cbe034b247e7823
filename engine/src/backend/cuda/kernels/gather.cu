// The rows whose logits are wanted, with what the last layer adds to them. One block for each.

#include "select.cuh"
#include "types.cuh"

struct GatherArgs {
    /// The residual stream `[tokens][cols]`.
    const float* x;
    /// `[tokens][cols]`, or null.
    const void* delta;
    /// One for each block.
    const u32* rows;
    /// `[rows][cols]`
    float* out;
    u32 cols;
};

namespace {

template <class T>
DEVICE void gather(const GatherArgs& args) {
    u64 from = u64(args.rows[block_index_x()]) * args.cols, to = u64(block_index_x()) * args.cols;
    const T* delta = static_cast<const T*>(args.delta);
    for (u32 i = thread_index(); i < args.cols; i += block_threads()) {
        float value = args.x[from + i];
        args.out[to + i] = delta ? value + to_float(delta[from + i]) : value;
    }
}

}  // namespace

IF_F32(KERNEL(gather_rows_f32, GatherArgs, 256, gather<float>))
IF_BF16(KERNEL(gather_rows_bf16, GatherArgs, 256, gather<bf16>))
IF_F16(KERNEL(gather_rows_f16, GatherArgs, 256, gather<f16>))
