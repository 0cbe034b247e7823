// Products of each expert with the rows that visit it, and the weighted sum of what a row's experts make.
// Grid x over features, y over tiles of visits.

#include "few_rows.cuh"
#include "moe.cuh"

struct ExpertSumArgs {
    /// `[visits][cols]`
    const void* x;
    /// `[rows][top_k]`
    const u32* experts;
    const float* weights;
    const u32* place;
    /// `[rows][cols]`
    void* out;
    u32 cols, top_k;
};

namespace {

/// Visits of a tile.
constexpr u32 FEW_VISITS = 8;
constexpr u32 MAX_TOP_K = 32;

/// A row's choices by ascending expert.
struct ExpertOrder {
    u32 at[MAX_TOP_K];
};

template <class T, class Format>
DEVICE void multiply_visits(const ExpertsArgs& args) {
    const u32* tile = args.tiles + 3 * block_index_y();
    if (tile[2] == 0) return;
    multiply_few_rows<T, T, Format, FEW_VISITS>(args.weights[tile[0]], static_cast<const T*>(args.x), nullptr, static_cast<T*>(args.out), args.out_cols, tile[2],
                                                VisitRows{args.sorted, tile[1], args.top_k});
}

/// In the order of the experts, as one after the other would have added them. One block for each row.
template <class T>
DEVICE void sum_visits(const ExpertSumArgs& args) {
    SHARED(ExpertOrder, order);
    u32 row = block_index_x(), own = thread_index();
    const u32* experts = args.experts + row * args.top_k;
    if (own < args.top_k) {
        u32 before = 0;
        for (u32 k = 0; k < args.top_k; k++) before += experts[k] < experts[own] || (experts[k] == experts[own] && k < own);
        order.at[before] = own;
    }
    sync_block();
    const T* x = static_cast<const T*>(args.x);
    T* out = static_cast<T*>(args.out) + u64(row) * args.cols;
    for (u32 c = thread_index(); c < args.cols; c += block_threads()) {
        float sum = 0;
        for (u32 k = 0; k < args.top_k; k++) {
            u32 visit = row * args.top_k + order.at[k];
            if (args.experts[visit] == NO_EXPERT) continue;
            sum += args.weights[visit] * to_float(x[u64(args.place[visit]) * args.cols + c]);
        }
        out[c] = narrow<T>(sum);
    }
}

}  // namespace

#define EXPERT(t, T, format, ...) KERNEL_OF(moe_product_##t##_##format, ExpertsArgs, FEW_ROWS_THREADS, sizeof(T) == 4 ? 2 : 3, multiply_visits<T, __VA_ARGS__>)
#define EXPERTS(t, T)                 \
    EXPERT(t, T, t, Plain<T, 8>)      \
    IF_Q8_0(EXPERT(t, T, q8_0, Q8_0)) \
    IF_Q4_K(EXPERT(t, T, q4_k, Q4_K)) \
    IF_Q5_K(EXPERT(t, T, q5_k, Q5_K)) \
    IF_Q6_K(EXPERT(t, T, q6_k, Q6_K)) \
    IF_INT4(EXPERT(t, T, int4, Int4)) \
    IF_FP8(EXPERT(t, T, fp8, Fp8))    \
    KERNEL(moe_sum_##t, ExpertSumArgs, 256, sum_visits<T>)
IF_F32(EXPERTS(f32, float))
IF_BF16(EXPERTS(bf16, bf16))
IF_F16(EXPERTS(f16, f16))
IF_F32(EXPERT(f32, float, bf16, Plain<bf16, 8>) EXPERT(f32, float, f16, Plain<f16, 8>))
