// Attention of many query rows of one sequence: 64 rows of one KV head for each block, 16 for each team. Rows are pairs of token and
// query head of the group, tokens first, so that all heads that share keys and values read them together.
// Grid x over tiles of rows, y over KV heads.

#include "attention.cuh"

namespace {

constexpr u32 PREFILL_ROWS = 16 * ATTENTION_TEAMS;

template <class T, class Kv, u32 DIM>
DEVICE void attend_many(const AttentionArgs& args) {
    typedef typename Operand<Kv>::type E;
    typedef AttentionShared<E, DIM, PREFILL_ROWS> Shared;
    DYNAMIC_SHARED(Shared, shared);
    constexpr u32 STRIDE = Shared::STRIDE;
    u32 sequence = args.work[2 * block_index_x()], row0 = args.work[2 * block_index_x() + 1] * PREFILL_ROWS, kv_head = block_index_y();
    u32 group = args.num_heads / args.kv.num_kv_heads, dim = args.kv.head_dim;
    u32 token0 = args.query_start[sequence], num_rows = (args.query_start[sequence + 1] - token0) * group;
    u32 row_width = (args.num_heads + 2 * args.kv.num_kv_heads) * dim;
    const T* queries = static_cast<const T*>(args.qkv) + kv_head * group * dim;

    clear_padding<E, STRIDE, DIM>(shared->queries, PREFILL_ROWS, dim);
    clear_padding<E, STRIDE, DIM>(shared->keys[0], 2 * TILE, dim);
    clear_padding<E, STRIDE, DIM>(shared->values[0], 2 * TILE, dim);
    for (u32 i = thread_index(); i < PREFILL_ROWS * dim; i += block_threads()) {
        u32 row = row0 + i / dim;
        float value = row < num_rows ? to_float(queries[u64(token0 + row / group) * row_width + row % group * dim + i % dim]) : 0;
        shared->queries[i / dim][i % dim] = narrow<E>(value);
    }

    // Positions that any row of the tile sees, and those that this lane's two rows see.
    u32 last_row = least(row0 + PREFILL_ROWS, num_rows) - 1;
    u32 first = first_seen(args.positions[token0 + row0 / group], args.window), end = args.positions[token0 + last_row / group] + 1;
    u32 seen_from[2], seen_to[2];
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = row0 + team_index() * 16 + team_lane() / 4 + 8 * i;
        bool exists = row < num_rows;
        u32 position = exists ? args.positions[token0 + row / group] : 0;
        seen_from[i] = first_seen(position, args.window);
        seen_to[i] = exists ? position + 1 : 0;
    }

    AttentionRows<E, DIM> rows;
    rows.begin();
    const u32* table = args.block_tables + args.table_start[sequence];
    u32 start = first / TILE * TILE, stage = 0;
    load_tile<Kv, E, STRIDE>(args, table, kv_head, start, first, end, shared->keys[0], shared->values[0]);
    copy_commit();
    for (; start < end; start += TILE, stage ^= 1) {
        if (start + TILE < end) {
            load_tile<Kv, E, STRIDE>(args, table, kv_head, start + TILE, first, end, shared->keys[stage ^ 1], shared->values[stage ^ 1]);
        }
        copy_commit();
        copy_wait<1>();
        sync_block();
        rows.template add<TILE>(shared->queries[team_index() * 16], shared->keys[stage][0], shared->values[stage][0], start, seen_from,
                                seen_to, args.scale, args.soft_cap);
        // The stage is written again in the next round.
        sync_block();
    }
    rows.finish();

    T* out = static_cast<T*>(args.out);
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = row0 + team_index() * 16 + team_lane() / 4 + 8 * i;
        if (row >= num_rows) continue;
        T* to = out + (u64(token0 + row / group) * args.num_heads + kv_head * group + row % group) * dim;
        float scale = 1.0f / rows.total[i];
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            u32 d = n * 8 + team_lane() % 4 * 2;
            if (d >= dim) continue;
            store<2>(to + d, Vec<T, 2>{{narrow<T>(rows.sums[n][2 * i] * scale), narrow<T>(rows.sums[n][2 * i + 1] * scale)}});
        }
    }
}

}  // namespace

#define PREFILL(t, T, kv, Kv)                                                                       \
    KERNEL(attention_prefill_##t##_##kv##_64, AttentionArgs, ATTENTION_THREADS, attend_many<T, Kv, 64>)   \
    KERNEL(attention_prefill_##t##_##kv##_128, AttentionArgs, ATTENTION_THREADS, attend_many<T, Kv, 128>) \
    KERNEL(attention_prefill_##t##_##kv##_256, AttentionArgs, ATTENTION_THREADS, attend_many<T, Kv, 256>)
PREFILL(bf16, bf16, bf16, bf16)
PREFILL(bf16, bf16, e4m3, e4m3)
PREFILL(f16, f16, f16, f16)
PREFILL(f16, f16, e4m3, e4m3)
