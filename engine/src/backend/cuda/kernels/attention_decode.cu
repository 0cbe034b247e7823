// Attention of one token of each sequence: all query heads that share a KV head are the rows of one product (up to 16), and the context
// is split among blocks (grid z) and, tile by tile, among a block's teams. A combining kernel adds up the splits.
// Splits are of a fixed number of positions, so that a sequence's result does not depend on what else runs.
// Grid x over rows of work, y over KV heads times groups of 16 query heads, z over splits.

#include "attention.cuh"

namespace {

constexpr u32 DECODE_ROWS = 16;
constexpr u32 TEAM_POSITIONS = TILE / ATTENTION_TEAMS;

/// What teams leave for each other, in place of keys and values.
template <u32 DIM>
struct Merge {
    float sums[ATTENTION_TEAMS][DECODE_ROWS][DIM];
    float maximum[ATTENTION_TEAMS][DECODE_ROWS], total[ATTENTION_TEAMS][DECODE_ROWS];
};

template <class T, class Kv, u32 DIM>
DEVICE void attend_one(const AttentionArgs& args) {
    typedef typename Operand<Kv>::type E;
    typedef AttentionShared<E, DIM, DECODE_ROWS> Shared;
    static_assert(sizeof(Merge<DIM>) <= sizeof(Shared), "teams merge where keys and values were");
    DYNAMIC_SHARED(Shared, shared);
    constexpr u32 STRIDE = Shared::STRIDE;
    u32 token = args.work[2 * block_index_x()], sequence = args.work[2 * block_index_x() + 1];
    u32 group = args.num_heads / args.kv.num_kv_heads, dim = args.kv.head_dim, parts = div_up(group, DECODE_ROWS);
    u32 kv_head = block_index_y() / parts, head0 = kv_head * group + block_index_y() % parts * DECODE_ROWS;
    u32 num_rows = least((kv_head + 1) * group - head0, DECODE_ROWS), split = block_index_z();

    u32 position = args.positions[token], seen = first_seen(position, args.window);
    u32 first = greatest(seen, split * args.split_positions), end = least(position + 1, (split + 1) * args.split_positions);
    if (first >= end) return;

    const T* queries = static_cast<const T*>(args.qkv) + u64(token) * (args.num_heads + 2 * args.kv.num_kv_heads) * dim + head0 * dim;
    clear_padding<E, STRIDE, DIM>(shared->queries, DECODE_ROWS, dim);
    clear_padding<E, STRIDE, DIM>(shared->keys[0], 2 * TILE, dim);
    clear_padding<E, STRIDE, DIM>(shared->values[0], 2 * TILE, dim);
    for (u32 i = thread_index(); i < DECODE_ROWS * dim; i += block_threads()) {
        shared->queries[i / dim][i % dim] = narrow<E>(i / dim < num_rows ? to_float(queries[i]) : 0);
    }

    AttentionRows<E, DIM> rows;
    rows.begin();
    const u32 seen_from[2] = {first, first}, seen_to[2] = {end, end};
    const u32* table = args.block_tables + args.table_start[sequence];
    u32 start = first / TILE * TILE, stage = 0, mine = team_index() * TEAM_POSITIONS;
    load_tile<Kv, E, STRIDE>(args, table, kv_head, start, first, end, shared->keys[0], shared->values[0]);
    copy_commit();
    for (; start < end; start += TILE, stage ^= 1) {
        if (start + TILE < end) {
            load_tile<Kv, E, STRIDE>(args, table, kv_head, start + TILE, first, end, shared->keys[stage ^ 1], shared->values[stage ^ 1]);
        }
        copy_commit();
        copy_wait<1>();
        sync_block();
        rows.template add<TEAM_POSITIONS>(shared->queries[0], shared->keys[stage][mine], shared->values[stage][mine], start + mine, seen_from,
                                          seen_to, args.scale, args.soft_cap);
        sync_block();
    }
    rows.finish();

    Merge<DIM>& merge = *reinterpret_cast<Merge<DIM>*>(shared);
    u32 team = team_index(), column = team_lane() % 4 * 2;
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = team_lane() / 4 + 8 * i;
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            merge.sums[team][row][n * 8 + column] = rows.sums[n][2 * i];
            merge.sums[team][row][n * 8 + column + 1] = rows.sums[n][2 * i + 1];
        }
        if (column == 0) {
            merge.maximum[team][row] = rows.maximum[i];
            merge.total[team][row] = rows.total[i];
        }
    }
    sync_block();
    for (u32 i = thread_index(); i < num_rows * dim; i += block_threads()) {
        u32 row = i / dim, d = i % dim;
        float maximum = -INFINITE, sum = 0, total = 0;
        for (u32 t = 0; t < ATTENTION_TEAMS; t++) maximum = greatest(maximum, merge.maximum[t][row]);
        for (u32 t = 0; t < ATTENTION_TEAMS; t++) {
            float factor = exp2f(merge.maximum[t][row] - maximum);
            sum += merge.sums[t][row][d] * factor;
            total += merge.total[t][row] * factor;
        }
        u64 head = u64(token) * args.num_heads + head0 + row;
        if (args.num_splits == 1) {
            static_cast<T*>(args.out)[head * dim + d] = narrow<T>(sum / total);
            continue;
        }
        u64 at = (u64(block_index_x()) * args.num_heads + head0 + row) * args.num_splits + split;
        args.partial[at * dim + d] = sum;
        if (d == 0) {
            args.partial_state[2 * at] = maximum;
            args.partial_state[2 * at + 1] = total;
        }
    }
}

/// Grid x over rows of work, y over query heads.
template <class T>
DEVICE void combine(const AttentionArgs& args) {
    u32 token = args.work[2 * block_index_x()], head = block_index_y(), dim = args.kv.head_dim;
    u32 position = args.positions[token];
    u32 from = first_seen(position, args.window) / args.split_positions, to = position / args.split_positions + 1;
    u64 at = (u64(block_index_x()) * args.num_heads + head) * args.num_splits;
    float maximum = -INFINITE;
    for (u32 s = from; s < to; s++) maximum = greatest(maximum, args.partial_state[2 * (at + s)]);
    T* out = static_cast<T*>(args.out) + (u64(token) * args.num_heads + head) * dim;
    for (u32 d = thread_index(); d < dim; d += block_threads()) {
        float sum = 0, total = 0;
        for (u32 s = from; s < to; s++) {
            float factor = exp2f(args.partial_state[2 * (at + s)] - maximum);
            sum += args.partial[(at + s) * dim + d] * factor;
            total += args.partial_state[2 * (at + s) + 1] * factor;
        }
        out[d] = narrow<T>(sum / total);
    }
}

}  // namespace

#define DECODE(t, T, kv, Kv)                                                                       \
    KERNEL(attention_decode_##t##_##kv##_64, AttentionArgs, ATTENTION_THREADS, attend_one<T, Kv, 64>)   \
    KERNEL(attention_decode_##t##_##kv##_128, AttentionArgs, ATTENTION_THREADS, attend_one<T, Kv, 128>) \
    KERNEL(attention_decode_##t##_##kv##_256, AttentionArgs, ATTENTION_THREADS, attend_one<T, Kv, 256>)
DECODE(bf16, bf16, bf16, bf16)
DECODE(bf16, bf16, e4m3, e4m3)
DECODE(f16, f16, f16, f16)
DECODE(f16, f16, e4m3, e4m3)
KERNEL(attention_combine_bf16, AttentionArgs, 256, combine<bf16>)
KERNEL(attention_combine_f16, AttentionArgs, 256, combine<f16>)
