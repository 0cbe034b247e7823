// Activations in the order of a weight's columns: where groups of a 4-bit matrix are scattered (GPTQ's act-order), the host has sorted its
// columns by group and filled groups up. Grid x over columns of the result, y over rows.

#include "rows.cuh"
#include "select.cuh"

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
struct Picked {
    const ColumnsArgs& args;
    template <u32 N>
    DEVICE void of(u32 row, u32 column) const {
        const T* x = static_cast<const T*>(args.x) + u64(row) * args.cols;
        Vec<T, N> values;
        UNROLL
        for (u32 i = 0; i < N; i++) {
            u32 from = args.order[column + i];
            values.at[i] = from < args.cols ? x[from] : narrow<T>(0.0f);
        }
        store(static_cast<T*>(args.out) + u64(row) * args.out_cols + column, values);
    }
};

template <class T>
DEVICE void pick_columns(const ColumnsArgs& args) {
    each_piece<T>(args.rows, args.out_cols, Picked<T>{args});
}

}  // namespace

IF_F32(KERNEL(pick_columns_f32, ColumnsArgs, 256, pick_columns<float>))
IF_BF16(KERNEL(pick_columns_bf16, ColumnsArgs, 256, pick_columns<bf16>))
IF_F16(KERNEL(pick_columns_f16, ColumnsArgs, 256, pick_columns<f16>))
