// Attention of one token of each sequence: all query heads that share a KV head are the rows of one product (up to 16), and the context is
// split among blocks. Teams share a tile: each makes the weights of 16 positions, then each adds up a quarter of the dimensions, so that
// sums go along the positions as the prompts' kernel has them. A combining kernel adds up the splits of rows that have several.
// What there is to do is made on the device (`attention_items`): a grid of any size takes it in turn, and a graph replays unchanged.
// Grid x over items, y over KV heads times groups of 16 query heads.

#include "attention.cuh"

struct AttentionItemsArgs {
    const u32* positions;
    /// `AttentionArgs::work`
    const u32* work;
    /// As in `AttentionArgs`; items of row i are `position / split_positions + 1`.
    u32* items;
    u32* item_start;
    u32 rows, split_positions;
};

namespace {

constexpr u32 DECODE_ROWS = 16;
constexpr u32 TEAM_POSITIONS = TILE / ATTENTION_TEAMS;

/// What teams tell each other of a tile.
template <class E>
struct alignas(16) Exchange {
    E weights[DECODE_ROWS][TILE + 8];
    /// The greatest score of each row, and the lanes' parts of the sum of weights.
    float maxima[ATTENTION_TEAMS][DECODE_ROWS];
    float parts[ATTENTION_TEAMS][DECODE_ROWS][4];
};

template <class Kv, u32 DIM>
struct DecodeShared {
    typedef typename Tiles<Kv, DIM>::E E;
    static constexpr u32 QUERY_BYTES = DECODE_ROWS * (DIM + 8) * sizeof(E);
    Tiles<Kv, DIM> tiles;
    /// Queries until they are in registers, then the exchange.
    alignas(16) char both[QUERY_BYTES > sizeof(Exchange<E>) ? QUERY_BYTES : sizeof(Exchange<E>)];
};

template <class T, class Kv, u32 DIM>
DEVICE void attend_split(const AttentionArgs& args, DecodeShared<Kv, DIM>& shared, u32 item) {
    typedef typename DecodeShared<Kv, DIM>::E E;
    constexpr u32 STRIDE = DIM + 8, OWN = DIM / ATTENTION_TEAMS;
    u32 row_of_work = args.items[2 * item], split = args.items[2 * item + 1];
    u32 token = args.work[2 * row_of_work], sequence = args.work[2 * row_of_work + 1];
    u32 group = args.num_heads / args.kv.num_kv_heads, dim = args.kv.head_dim, parts = div_up(group, DECODE_ROWS);
    u32 kv_head = block_index_y() / parts, head0 = kv_head * group + block_index_y() % parts * DECODE_ROWS;
    u32 num_rows = least((kv_head + 1) * group - head0, DECODE_ROWS), lane = team_lane(), team = team_index();
    u32 position = args.positions[token], seen = first_seen(position, args.window);
    u32 first = greatest(seen, split * args.split_positions), end = least(position + 1, (split + 1) * args.split_positions);
    if (first >= end) return;

    // All are done with the item before.
    sync_block();
    E(*queries)[STRIDE] = reinterpret_cast<E(*)[STRIDE]>(shared.both);
    Exchange<E>& exchange = *reinterpret_cast<Exchange<E>*>(shared.both);
    const T* from = static_cast<const T*>(args.qkv) + u64(token) * (args.num_heads + 2 * args.kv.num_kv_heads) * dim + head0 * dim;
    const Context context = {args.cache, args.block_tables + args.table_start[sequence], args.kv, kv_head, first, end};
    u32 start = first / TILE * TILE, stage = 0;
    shared.tiles.load(context, start, 0);
    copy_commit();
    clear_padding<E, STRIDE>(queries, DECODE_ROWS, dim, DIM);
    for (u32 i = thread_index(); i < DECODE_ROWS * dim; i += block_threads()) {
        queries[i / dim][i % dim] = narrow<E>(i / dim < num_rows ? to_float(from[i]) : 0);
    }
    sync_block();
    u32 query[DIM / 16][4];
    UNROLL
    for (u32 d = 0; d < DIM; d += 16) load_matrices<false>(query[d / 16], queries[0] + lane % 16 * STRIDE + d + lane / 16 * 8);

    // Of rows `lane / 4` and 8 more: this team's dimensions, 8 each.
    float sums[OWN / 8][4] = {}, maximum[2] = {-INFINITE, -INFINITE}, total[2] = {};
    for (; start < end; start += TILE, stage ^= 1) {
        copy_wait<0>();
        // The tile is there for all, and all are done with the one before, whose place the next one takes.
        sync_block();
        if (start + TILE < end) shared.tiles.load(context, start + TILE, stage ^ 1);
        copy_commit();
        shared.tiles.open(stage, dim);

        const E *keys = shared.tiles.keys(stage) + team * TEAM_POSITIONS * STRIDE, *values = shared.tiles.values(stage) + team * OWN;
        float scores[2][4] = {}, base[2], factor[2];
        u32 b[4];
        UNROLL
        for (u32 d = 0; d < DIM; d += 16) {
            load_matrices<false>(b, keys + (lane / 16 * 8 + lane % 8) * STRIDE + d + lane / 8 % 2 * 8);
            mma<E>(scores[0], query[d / 16], b[0], b[1]);
            mma<E>(scores[1], query[d / 16], b[2], b[3]);
        }
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            float best = -INFINITE;
            UNROLL
            for (u32 n = 0; n < 2; n++) {
                UNROLL
                for (u32 j = 0; j < 2; j++) {
                    u32 at = start + team * TEAM_POSITIONS + n * 8 + lane % 4 * 2 + j;
                    float& score = scores[n][2 * i + j];
                    score = score_of(score, at >= first && at < end, args.scale, args.soft_cap);
                    best = greatest(best, score);
                }
            }
            best = greatest(best, shuffle_xor(best, 1));
            best = greatest(best, shuffle_xor(best, 2));
            if (lane % 4 == 0) exchange.maxima[team][lane / 4 + 8 * i] = best;
        }
        sync_block();
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            u32 row = lane / 4 + 8 * i;
            float best = maximum[i];
            UNROLL
            for (u32 t = 0; t < ATTENTION_TEAMS; t++) best = greatest(best, exchange.maxima[t][row]);
            base[i] = base_of(best);
            factor[i] = exp2f(add_rn(maximum[i], -base[i]));
            maximum[i] = best;
            exchange.parts[team][row][lane % 4] = weigh(scores[0][2 * i], scores[0][2 * i + 1], scores[1][2 * i], scores[1][2 * i + 1], base[i]);
            UNROLL
            for (u32 n = 0; n < 2; n++) {
                u32* to = reinterpret_cast<u32*>(&exchange.weights[row][team * TEAM_POSITIONS + n * 8 + lane % 4 * 2]);
                *to = pack_pair<E>(scores[n][2 * i], scores[n][2 * i + 1]);
            }
        }
        sync_block();
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            total[i] = mul_rn(total[i], factor[i]);
            UNROLL
            for (u32 t = 0; t < ATTENTION_TEAMS; t++) total[i] = add_rn(total[i], exchange.parts[t][lane / 4 + 8 * i][lane % 4]);
        }
        UNROLL
        for (u32 n = 0; n < OWN / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) sums[n][j] = mul_rn(sums[n][j], factor[j / 2]);
        }
        UNROLL
        for (u32 p = 0; p < TILE; p += 16) {
            u32 a[4];
            load_matrices<false>(a, &exchange.weights[lane % 16][p + lane / 16 * 8]);
            UNROLL
            for (u32 d = 0; d < OWN; d += 16) {
                load_matrices<true>(b, values + (p + lane / 8 % 2 * 8 + lane % 8) * STRIDE + d + lane / 16 * 8);
                mma<E>(sums[d / 8], a, b[0], b[1]);
                mma<E>(sums[d / 8 + 1], a, b[2], b[3]);
            }
        }
    }

    bool alone = position / args.split_positions == seen / args.split_positions;
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = lane / 4 + 8 * i;
        total[i] = add_rn(total[i], shuffle_xor(total[i], 1));
        total[i] = add_rn(total[i], shuffle_xor(total[i], 2));
        if (row >= num_rows) continue;
        Joint joint = Joint::of(-INFINITE, maximum[i]);
        float all = joint.join(0, total[i]);
        T* out = static_cast<T*>(args.out) + (u64(token) * args.num_heads + head0 + row) * dim;
        u64 at = u64(item) * args.num_heads + head0 + row;
        UNROLL
        for (u32 n = 0; n < OWN / 8; n++) {
            u32 d = team * OWN + n * 8 + lane % 4 * 2;
            if (d >= dim) continue;
            float *low = &sums[n][2 * i], *high = low + 1;
            if (alone) store<2>(out + d, Vec<T, 2>{{narrow<T>(joint.join(0, *low) / all), narrow<T>(joint.join(0, *high) / all)}});
            else store<2>(args.partial + at * dim + d, Vec<float, 2>{{*low, *high}});
        }
        if (!alone && team == 0 && lane % 4 == 0) store<2>(args.partial_state + 2 * at, Vec<float, 2>{{maximum[i], total[i]}});
    }
}

template <class T, class Kv, u32 DIM>
DEVICE void attend_one(const AttentionArgs& args) {
    typedef DecodeShared<Kv, DIM> Shared;
    DYNAMIC_SHARED(Shared, shared);
    shared->tiles.clear(args.kv.head_dim);
    u32 num_items = args.item_start[args.num_rows];
    for (u32 item = block_index_x(); item < num_items; item += grid_size_x()) attend_split<T, Kv, DIM>(args, *shared, item);
}

/// Grid x over rows of work, y over query heads.
template <class T>
DEVICE void combine(const AttentionArgs& args) {
    u32 row = block_index_x(), token = args.work[2 * row], head = block_index_y(), dim = args.kv.head_dim;
    u32 position = args.positions[token];
    u32 from = first_seen(position, args.window) / args.split_positions, to = position / args.split_positions;
    if (from == to) return;
    T* out = static_cast<T*>(args.out) + (u64(token) * args.num_heads + head) * dim;
    for (u32 d = thread_index(); d < dim; d += block_threads()) {
        float maximum = -INFINITE, sum = 0, total = 0;
        for (u32 s = from; s <= to; s++) {
            u64 at = u64(args.item_start[row] + s) * args.num_heads + head;
            Joint joint = Joint::of(maximum, args.partial_state[2 * at]);
            maximum = joint.maximum;
            total = joint.join(total, args.partial_state[2 * at + 1]);
            sum = joint.join(sum, args.partial[at * dim + d]);
        }
        out[d] = narrow<T>(sum / total);
    }
}

constexpr u32 ITEMS_THREADS = 1024;

/// One block.
DEVICE void list_items(const AttentionItemsArgs& args) {
    SHARED(BlockScratch<u32>, warps);
    u32 start = 0, threads = block_threads();
    for (u32 first = 0; first < args.rows; first += threads) {
        u32 row = first + thread_index(), own = row < args.rows ? args.positions[args.work[2 * row]] / args.split_positions + 1 : 0, end = own;
        // How many items there are up to this row's last, first in the warp, then in the warps before.
        for (u32 step = 1; step < WARP; step *= 2) {
            u32 other = shuffle(end, lane_index() - step);
            if (lane_index() >= step) end += other;
        }
        sync_block();
        if (lane_index() == WARP - 1) warps.warps[warp_index()] = end;
        sync_block();
        u32 all = 0;
        for (u32 w = 0; w < threads / WARP; w++) {
            if (w == warp_index()) end += all;
            all += warps.warps[w];
        }
        if (row < args.rows) args.item_start[row] = start + end - own;
        start += all;
    }
    if (thread_index() == 0) args.item_start[args.rows] = start;
    sync_block();
    // A row's items by one warp.
    for (u32 row = warp_index(); row < args.rows; row += threads / WARP) {
        u32 from = args.item_start[row], end = args.item_start[row + 1];
        for (u32 item = from + lane_index(); item < end; item += WARP) store<2>(args.items + 2 * item, Vec<u32, 2>{{row, item - from}});
    }
}

}  // namespace

KERNEL(attention_items, AttentionItemsArgs, ITEMS_THREADS, list_items)
#define DECODE(t, T, kv, Kv)                                                                                       \
    IF_DIM_64(KERNEL(attention_decode_##t##_##kv##_64, AttentionArgs, ATTENTION_THREADS, attend_one<T, Kv, 64>))    \
    IF_DIM_128(KERNEL(attention_decode_##t##_##kv##_128, AttentionArgs, ATTENTION_THREADS, attend_one<T, Kv, 128>)) \
    IF_DIM_256(KERNEL(attention_decode_##t##_##kv##_256, AttentionArgs, ATTENTION_THREADS, attend_one<T, Kv, 256>))
IF_BF16(IF_KV_BF16(DECODE(bf16, bf16, bf16, bf16)))
IF_BF16(IF_KV_E4M3(DECODE(bf16, bf16, e4m3, e4m3)))
IF_F16(IF_KV_F16(DECODE(f16, f16, f16, f16)))
IF_F16(IF_KV_E4M3(DECODE(f16, f16, e4m3, e4m3)))
IF_BF16(KERNEL(attention_combine_bf16, AttentionArgs, 256, combine<bf16>))
IF_F16(KERNEL(attention_combine_f16, AttentionArgs, 256, combine<f16>))
