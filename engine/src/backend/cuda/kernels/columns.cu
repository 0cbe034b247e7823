// Activations in the order of a weight's columns: where groups of a 4-bit matrix are scattered (GPTQ's act-order), the host has sorted its
// columns by group and filled groups up. Elementwise: each thread strides over the whole.

#include "select.cuh"
#include "types.cuh"

struct ColumnsArgs {
    /// `[rows][cols]`
    const void* x;
    /// The column of `x` for each of `out`; beyond the last where there is none, which makes zero.
    const u32* order;
    /// `[rows][out_cols]`
    void* out;
    u32 rows, cols, out_cols;
};

namespace {

template <class T>
DEVICE void pick_columns(const ColumnsArgs& args) {
    const T* x = static_cast<const T*>(args.x);
    T* out = static_cast<T*>(args.out);
    u64 total = u64(args.rows) * args.out_cols;
    for (u64 i = u64(block_index_x()) * block_threads() + thread_index(); i < total; i += u64(grid_size_x()) * block_threads()) {
        u32 column = args.order[i % args.out_cols];
        out[i] = column < args.cols ? x[i / args.out_cols * args.cols + column] : narrow<T>(0.0f);
    }
}

}  // namespace

IF_F32(KERNEL(pick_columns_f32, ColumnsArgs, 256, pick_columns<float>))
IF_BF16(KERNEL(pick_columns_bf16, ColumnsArgs, 256, pick_columns<bf16>))
IF_F16(KERNEL(pick_columns_f16, ColumnsArgs, 256, pick_columns<f16>))
