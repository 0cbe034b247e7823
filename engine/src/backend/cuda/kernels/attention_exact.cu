// Attention in f32 throughout, without tensor cores: for models computed in f32 and for caches in f32, where rounding queries and weights
// to 16 bits would show, and for AMD's cards, where a block has too little shared memory for tiles. One token and one query head for each block; its warps take positions in turn, lanes neighbouring dimensions.
// Grid x over (token, sequence) rows of work, of which a decode and a prompt's tokens are the same, y over query heads.

#include "attention_args.cuh"
#include "reduce.cuh"
#include "select.cuh"

namespace {

constexpr u32 MOST_DIMENSIONS = 256;
constexpr u32 EXACT_THREADS = 128;
constexpr u32 EXACT_WARPS = EXACT_THREADS / WARP;

/// What warps leave for each other.
struct ExactMerge {
    float sums[EXACT_WARPS][MOST_DIMENSIONS];
    float maximum[EXACT_WARPS], total[EXACT_WARPS];
};

template <class T, class Kv>
DEVICE void attend_exactly(const AttentionArgs& args) {
    constexpr u32 N = MOST_DIMENSIONS / WARP;
    SHARED(ExactMerge, merge);
    u32 token = args.work[2 * block_index_x()], sequence = args.work[2 * block_index_x() + 1], head = block_index_y();
    u32 dim = args.kv.head_dim, kv_head = head / (args.num_heads / args.kv.num_kv_heads), lane = lane_index(), warp = warp_index();
    const T* from = static_cast<const T*>(args.qkv) + u64(token) * (args.num_heads + 2 * args.kv.num_kv_heads) * dim + head * dim;
    float query[N], sums[N] = {}, maximum = -INFINITE, total = 0;
    UNROLL
    for (u32 i = 0; i < N; i++) query[i] = lane + i * WARP < dim ? to_float(from[lane + i * WARP]) : 0;

    u32 end = args.positions[token] + 1, first = first_seen(end - 1, args.window);
    const u32* table = args.block_tables + args.table_start[sequence];
    const Kv* cache = static_cast<const Kv*>(args.cache);
    // A position is the same warp's in every batch.
    for (u32 position = first / EXACT_WARPS * EXACT_WARPS + warp; position < end; position += EXACT_WARPS) {
        if (position < first) continue;
        u32 block = table[position / args.kv.block_size], offset = position % args.kv.block_size;
        const Kv* key = cache + kv_offset(args.kv, block, 0, kv_head, offset);
        const Kv* value = cache + kv_offset(args.kv, block, 1, kv_head, offset);
        float score = 0;
        UNROLL
        for (u32 i = 0; i < N; i++) {
            if (lane + i * WARP < dim) score += query[i] * to_float(key[lane + i * WARP]);
        }
        score = reduce_lanes<Sum>(score) * args.scale;
        if (args.soft_cap > 0) score = tanhf(score / args.soft_cap) * args.soft_cap;
        float best = greatest(maximum, score), factor = expf(maximum - best), weight = expf(score - best);
        maximum = best;
        total = total * factor + weight;
        UNROLL
        for (u32 i = 0; i < N; i++) {
            if (lane + i * WARP < dim) sums[i] = sums[i] * factor + weight * to_float(value[lane + i * WARP]);
        }
    }

    UNROLL
    for (u32 i = 0; i < N; i++) merge.sums[warp][lane + i * WARP] = sums[i];
    if (lane == 0) {
        merge.maximum[warp] = maximum;
        merge.total[warp] = total;
    }
    sync_block();
    T* out = static_cast<T*>(args.out) + (u64(token) * args.num_heads + head) * dim;
    for (u32 d = thread_index(); d < dim; d += EXACT_THREADS) {
        float greatest_of_all = -INFINITE, sum = 0, weights = 0;
        for (u32 w = 0; w < EXACT_WARPS; w++) greatest_of_all = greatest(greatest_of_all, merge.maximum[w]);
        for (u32 w = 0; w < EXACT_WARPS; w++) {
            float factor = expf(merge.maximum[w] - greatest_of_all);
            sum += merge.sums[w][d] * factor;
            weights += merge.total[w] * factor;
        }
        out[d] = narrow<T>(sum / weights);
    }
}

}  // namespace

#define EXACT(t, T, kv, Kv) KERNEL(attention_exact_##t##_##kv, AttentionArgs, EXACT_THREADS, attend_exactly<T, Kv>)
IF_F32(IF_KV_F32(EXACT(f32, float, f32, float)))
IF_F32(IF_KV_BF16(EXACT(f32, float, bf16, bf16)))
IF_F32(IF_KV_F16(EXACT(f32, float, f16, f16)))
IF_F32(IF_KV_E4M3(EXACT(f32, float, e4m3, e4m3)))
IF_BF16(IF_KV_F32(EXACT(bf16, bf16, f32, float)) IF_KV_BF16(EXACT(bf16, bf16, bf16, bf16)) IF_KV_E4M3(EXACT(bf16, bf16, e4m3, e4m3)))
IF_F16(IF_KV_F32(EXACT(f16, f16, f32, float)) IF_KV_F16(EXACT(f16, f16, f16, f16)) IF_KV_E4M3(EXACT(f16, f16, e4m3, e4m3)))
