// Which experts each row goes to: the likeliest, of equal ones the first, with their probabilities or their shares of the sum.
// Then rows are grouped by expert, in their order, without atomics: every run groups them alike.

#include "moe.cuh"
#include "reduce.cuh"

struct RouteArgs {
    /// `[rows][experts]`
    const void* logits;
    /// `[rows][top_k]`
    u32* experts;
    float* weights;
    /// How many of the rows are no padding; null where all are.
    const u32* num_real;
    u32 rows, num_experts, top_k, renormalize;
};

struct GroupArgs {
    /// `[rows][top_k]`: a pair of row and choice is one visit.
    const u32* experts;
    /// Visits by expert, and where each visit is among these; visits to no expert are left out.
    u32* sorted;
    u32* place;
    /// Per expert, plus one.
    u32* expert_start;
    u32 visits, num_experts;
};

struct TilesArgs {
    const u32* expert_start;
    /// (expert, first visit, number of visits) of up to `tile_rows` each; those left over have none.
    u32* tiles;
    u32 num_experts, num_tiles, tile_rows;
};

namespace {

constexpr u32 MAX_EXPERTS = 512;

/// One warp for each row.
template <class T>
DEVICE void choose_experts(const RouteArgs& args) {
    constexpr u32 EACH = MAX_EXPERTS / WARP;
    u32 row = block_index_x() * (block_threads() / WARP) + warp_index();
    if (row >= args.rows) return;
    if (args.num_real && row >= *args.num_real) {
        for (u32 k = lane_index(); k < args.top_k; k += WARP) {
            args.experts[row * args.top_k + k] = NO_EXPERT;
            args.weights[row * args.top_k + k] = 0;
        }
        return;
    }
    const T* logits = static_cast<const T*>(args.logits) + u64(row) * args.num_experts;
    float probability[EACH], best = -INFINITE, total = 0;
    UNROLL
    for (u32 i = 0; i < EACH; i++) {
        u32 expert = i * WARP + lane_index();
        probability[i] = expert < args.num_experts ? to_float(logits[expert]) : -INFINITE;
        best = greatest(best, probability[i]);
    }
    best = reduce_lanes<Max>(best);
    UNROLL
    for (u32 i = 0; i < EACH; i++) {
        probability[i] = expf(probability[i] - best);
        total += probability[i];
    }
    total = reduce_lanes<Sum>(total);
    UNROLL
    for (u32 i = 0; i < EACH; i++) probability[i] = i * WARP + lane_index() < args.num_experts ? probability[i] / total : -1;

    float chosen_total = 0;
    for (u32 k = 0; k < args.top_k; k++) {
        // Probabilities are not negative, so that their bits are in their order; lower experts first among equals.
        u64 key = 0;
        UNROLL
        for (u32 i = 0; i < EACH; i++) {
            if (probability[i] >= 0) key = greatest(key, (u64(as_bits(probability[i])) << 32) | (0xffffffffu - (i * WARP + lane_index())));
        }
        key = reduce_lanes<Max>(key);
        u32 expert = 0xffffffffu - u32(key);
        float weight = as_float(u32(key >> 32));
        chosen_total += weight;
        if (lane_index() == 0) {
            args.experts[row * args.top_k + k] = expert;
            args.weights[row * args.top_k + k] = weight;
        }
        UNROLL
        for (u32 i = 0; i < EACH; i++) {
            if (i * WARP + lane_index() == expert) probability[i] = -1;
        }
    }
    sync_warp();
    if (!args.renormalize) return;
    for (u32 k = lane_index(); k < args.top_k; k += WARP) args.weights[row * args.top_k + k] /= chosen_total;
}

/// One block for each expert.
DEVICE void group_visits(const GroupArgs& args) {
    SHARED(BlockScratch<u32>, scratch);
    SHARED(BlockScratch<u32>, counts);
    u32 expert = block_index_x(), below = 0, threads = block_threads();
    for (u32 i = thread_index(); i < args.visits; i += threads) below += args.experts[i] < expert;
    u32 start = reduce_block<Sum>(below, scratch), next = start;
    if (thread_index() == 0) args.expert_start[expert] = start;
    for (u32 first = 0; first < args.visits; first += threads) {
        u32 visit = first + thread_index(), mine = visit < args.visits && args.experts[visit] == expert, before = mine;
        // How many of the threads up to this one have a visit, first in the warp, then in the warps before.
        for (u32 step = 1; step < WARP; step *= 2) {
            u32 other = shuffle(before, lane_index() - step);
            if (lane_index() >= step) before += other;
        }
        sync_block();
        if (lane_index() == WARP - 1) counts.warps[warp_index()] = before;
        sync_block();
        u32 all = 0;
        for (u32 w = 0; w < threads / WARP; w++) {
            if (w == warp_index()) before += all;
            all += counts.warps[w];
        }
        if (mine) {
            u32 at = next + before - 1;
            args.sorted[at] = visit;
            args.place[visit] = at;
        }
        next += all;
    }
    if (thread_index() == 0 && expert + 1 == args.num_experts) args.expert_start[expert + 1] = next;
}

/// One block of one thread for each expert, or more.
DEVICE void cut_tiles(const TilesArgs& args) {
    u32 expert = thread_index();
    u32 before = 0;
    // Experts are few: each thread counts the tiles of those before its own.
    for (u32 e = 0; e < least(expert, args.num_experts); e++) before += div_up(args.expert_start[e + 1] - args.expert_start[e], args.tile_rows);
    if (expert < args.num_experts) {
        u32 first = args.expert_start[expert], end = args.expert_start[expert + 1];
        for (; first < end; first += args.tile_rows, before++) {
            args.tiles[3 * before] = expert;
            args.tiles[3 * before + 1] = first;
            args.tiles[3 * before + 2] = least(end - first, args.tile_rows);
        }
    }
    if (expert + 1 == block_threads()) {
        for (; before < args.num_tiles; before++) {
            args.tiles[3 * before] = args.tiles[3 * before + 1] = args.tiles[3 * before + 2] = 0;
        }
    }
}

}  // namespace

IF_F32(KERNEL(moe_route_f32, RouteArgs, 128, choose_experts<float>))
IF_BF16(KERNEL(moe_route_bf16, RouteArgs, 128, choose_experts<bf16>))
IF_F16(KERNEL(moe_route_f16, RouteArgs, 128, choose_experts<f16>))
KERNEL(moe_group, GroupArgs, 256, group_visits)
KERNEL(moe_tiles, TilesArgs, 1024, cut_tiles)
