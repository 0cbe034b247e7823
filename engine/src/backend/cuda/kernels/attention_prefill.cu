// Attention of many query rows of one sequence: 64 rows of one KV head for each block, 16 for each team. Rows are pairs of token and
// query head of the group, tokens first, so that all heads that share keys and values read them together.
// Splits are added up as the decoding kernel's are, though here they come one after the other: a token's result is the same from both.
// Grid x over tiles of rows, y over KV heads.

#include "attention.cuh"

namespace {

constexpr u32 PREFILL_ROWS = 16 * ATTENTION_TEAMS;

template <class Kv, u32 DIM>
struct PrefillShared {
    typedef typename Tiles<Kv, DIM>::E E;
    Tiles<Kv, DIM> tiles;
    alignas(16) E queries[PREFILL_ROWS][DIM + 8];
};

/// Weighted sums of values of rows `lane / 4` and 8 more, 8 dimensions each; the greatest score so far; the sum of weights relative to it,
/// of which a lane has its part until `finish`.
template <u32 DIM>
struct Sums {
    float sums[DIM / 8][4];
    float maximum[2], total[2];

    DEVICE void begin() {
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) sums[n][j] = 0;
        }
        maximum[0] = maximum[1] = -INFINITE;
        total[0] = total[1] = 0;
    }
    DEVICE void finish() {
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            total[i] = add_rn(total[i], shuffle_xor(total[i], 1));
            total[i] = add_rn(total[i], shuffle_xor(total[i], 2));
        }
    }

    /// Takes in a tile from position `start` on. Row i sees `seen_from[i] <= position < seen_to[i]`.
    template <class E>
    DEVICE void add(const E* queries, const E* keys, const E* values, u32 start, const u32 (&seen_from)[2], const u32 (&seen_to)[2],
                    float scale, float soft_cap) {
        constexpr u32 STRIDE = DIM + 8;
        u32 lane = team_lane();
        float scores[TILE / 8][4] = {};
        UNROLL
        for (u32 d = 0; d < DIM; d += 16) {
            u32 a[4], b[4];
            load_matrices<false>(a, queries + lane % 16 * STRIDE + d + lane / 16 * 8);
            UNROLL
            for (u32 n = 0; n < TILE; n += 16) {
                load_matrices<false>(b, keys + (n + lane / 16 * 8 + lane % 8) * STRIDE + d + lane / 8 % 2 * 8);
                mma<E>(scores[n / 8], a, b[0], b[1]);
                mma<E>(scores[n / 8 + 1], a, b[2], b[3]);
            }
        }
        float factor[2], base[2];
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            float best = maximum[i];
            UNROLL
            for (u32 n = 0; n < TILE / 8; n++) {
                UNROLL
                for (u32 j = 0; j < 2; j++) {
                    u32 position = start + n * 8 + lane % 4 * 2 + j;
                    float& score = scores[n][2 * i + j];
                    score = score_of(score, position >= seen_from[i] && position < seen_to[i], scale, soft_cap);
                    best = greatest(best, score);
                }
            }
            best = greatest(best, shuffle_xor(best, 1));
            best = greatest(best, shuffle_xor(best, 2));
            base[i] = base_of(best);
            factor[i] = exp2f(add_rn(maximum[i], -base[i]));
            maximum[i] = best;
            total[i] = mul_rn(total[i], factor[i]);
            UNROLL
            for (u32 n = 0; n < TILE / 8; n += 2) {
                float weight = weigh(scores[n][2 * i], scores[n][2 * i + 1], scores[n + 1][2 * i], scores[n + 1][2 * i + 1], base[i]);
                total[i] = add_rn(total[i], weight);
            }
        }
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            UNROLL
            for (u32 j = 0; j < 4; j++) sums[n][j] = mul_rn(sums[n][j], factor[j / 2]);
        }
        UNROLL
        for (u32 p = 0; p < TILE; p += 16) {
            u32 a[4], b[4];
            UNROLL
            for (u32 j = 0; j < 4; j++) a[j] = pack_pair<E>(scores[p / 8 + j / 2][j % 2 * 2], scores[p / 8 + j / 2][j % 2 * 2 + 1]);
            UNROLL
            for (u32 d = 0; d < DIM; d += 16) {
                load_matrices<true>(b, values + (p + lane / 8 % 2 * 8 + lane % 8) * STRIDE + d + lane / 16 * 8);
                mma<E>(sums[d / 8], a, b[0], b[1]);
                mma<E>(sums[d / 8 + 1], a, b[2], b[3]);
            }
        }
    }
};

/// Sums over the splits so far, in registers.
template <u32 DIM>
struct Running {
    float sums[DIM / 8][4];
    DEVICE float& at(u32 n, u32 j) { return sums[n][j]; }
};
/// There are not enough registers for both: in local memory, which is touched once a split.
template <>
struct Running<256> {
    volatile float sums[32][4];
    DEVICE volatile float& at(u32 n, u32 j) { return sums[n][j]; }
};

template <class T, class Kv, u32 DIM>
DEVICE void attend_many(const AttentionArgs& args) {
    typedef PrefillShared<Kv, DIM> Shared;
    typedef typename Shared::E E;
    DYNAMIC_SHARED(Shared, shared);
    u32 sequence = args.work[2 * block_index_x()], row0 = args.work[2 * block_index_x() + 1] * PREFILL_ROWS, kv_head = block_index_y();
    u32 group = args.num_heads / args.kv.num_kv_heads, dim = args.kv.head_dim;
    u32 token0 = args.query_start[sequence], num_rows = (args.query_start[sequence + 1] - token0) * group;
    u32 row_width = (args.num_heads + 2 * args.kv.num_kv_heads) * dim;
    const T* queries = static_cast<const T*>(args.qkv) + kv_head * group * dim;

    shared->tiles.clear(dim);
    clear_padding<E, DIM + 8>(shared->queries, PREFILL_ROWS, dim, DIM);
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

    Sums<DIM> split;
    Running<DIM> running;
    float maximum[2] = {-INFINITE, -INFINITE}, total[2] = {};
    split.begin();
    UNROLL
    for (u32 n = 0; n < DIM / 8; n++) {
        UNROLL
        for (u32 j = 0; j < 4; j++) running.at(n, j) = 0;
    }
    const Context context = {args.cache, args.block_tables + args.table_start[sequence], args.kv, kv_head, first, end};
    u32 start = first / TILE * TILE, stage = 0;
    shared->tiles.load(context, start, 0);
    copy_commit();
    for (; start < end; start += TILE, stage ^= 1) {
        copy_wait<0>();
        // The tile is there for all, and all are done with the one before, whose place the next one takes.
        sync_block();
        if (start + TILE < end) shared->tiles.load(context, start + TILE, stage ^ 1);
        copy_commit();
        shared->tiles.open(stage, dim);
        split.template add<E>(shared->queries[team_index() * 16], shared->tiles.keys(stage), shared->tiles.values(stage), start, seen_from,
                              seen_to, args.scale, args.soft_cap);
        if ((start + TILE) % args.split_positions != 0 && start + TILE < end) continue;
        split.finish();
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            Joint joint = Joint::of(maximum[i], split.maximum[i]);
            maximum[i] = joint.maximum;
            total[i] = joint.join(total[i], split.total[i]);
            UNROLL
            for (u32 n = 0; n < DIM / 8; n++) {
                running.at(n, 2 * i) = joint.join(running.at(n, 2 * i), split.sums[n][2 * i]);
                running.at(n, 2 * i + 1) = joint.join(running.at(n, 2 * i + 1), split.sums[n][2 * i + 1]);
            }
        }
        split.begin();
    }

    T* out = static_cast<T*>(args.out);
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        u32 row = row0 + team_index() * 16 + team_lane() / 4 + 8 * i;
        if (row >= num_rows) continue;
        T* to = out + (u64(token0 + row / group) * args.num_heads + kv_head * group + row % group) * dim;
        UNROLL
        for (u32 n = 0; n < DIM / 8; n++) {
            u32 d = n * 8 + team_lane() % 4 * 2;
            if (d >= dim) continue;
            store<2>(to + d, Vec<T, 2>{{narrow<T>(running.at(n, 2 * i) / total[i]), narrow<T>(running.at(n, 2 * i + 1) / total[i])}});
        }
    }
}

}  // namespace

#define PREFILL(t, T, kv, Kv)                                                                                       \
    IF_DIM_64(KERNEL(attention_prefill_##t##_##kv##_64, AttentionArgs, ATTENTION_THREADS, attend_many<T, Kv, 64>))    \
    IF_DIM_128(KERNEL(attention_prefill_##t##_##kv##_128, AttentionArgs, ATTENTION_THREADS, attend_many<T, Kv, 128>)) \
    IF_DIM_256(KERNEL(attention_prefill_##t##_##kv##_256, AttentionArgs, ATTENTION_THREADS, attend_many<T, Kv, 256>))
IF_BF16(IF_KV_BF16(PREFILL(bf16, bf16, bf16, bf16)))
IF_BF16(IF_KV_E4M3(PREFILL(bf16, bf16, e4m3, e4m3)))
IF_F16(IF_KV_F16(PREFILL(f16, f16, f16, f16)))
IF_F16(IF_KV_E4M3(PREFILL(f16, f16, e4m3, e4m3)))
