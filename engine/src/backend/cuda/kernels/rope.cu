// Rotary embedding. Angles are computed once a step, since all layers of a model share them: `[token][cos | sin]`, of half the rotary
// dimensions each. Then, for every layer, norms of queries and keys, rotation, and the write into the cache are one pass.

#include "kv.cuh"
#include "reduce.cuh"
#include "select.cuh"

struct RopeAnglesArgs {
    const u32* positions;
    /// `half` frequencies, with all scaling applied by the host.
    const float* inv_freq;
    float* out;
    u32 tokens, half;
    /// What cosines and sines are multiplied by: 1 except for yarn.
    float scale;
};

struct RopeKvArgs {
    /// `[tokens][q heads | k heads | v heads]`; queries are changed in place.
    void* qkv;
    const float* angles;
    /// Where each token's key and value go: block * block_size + offset; `NO_SLOT` for padding, which writes none.
    const u32* slots;
    /// Null where heads are not normalised.
    const float* q_norm;
    const float* k_norm;
    /// The layer's cache.
    void* cache;
    KvShape kv;
    u32 num_heads, half;
    float eps;
};

namespace {

constexpr u32 MAX_HEAD_DIM = 256;
constexpr u32 NO_SLOT = 0xffffffffu;

DEVICE void compute_angles(const RopeAnglesArgs& args) {
    u32 i = block_index_x() * block_threads() + thread_index();
    if (i >= args.tokens * args.half) return;
    u32 token = i / args.half, pair = i % args.half;
    // The product in f32, as transformers has it.
    float angle = float(args.positions[token]) * args.inv_freq[pair];
    float* out = args.out + u64(token) * 2 * args.half + pair;
    out[0] = cosf(angle) * args.scale;
    out[args.half] = sinf(angle) * args.scale;
}

/// One warp for each head of a token, queries first; grid x over tokens, y over groups of heads.
template <class T, class Kv>
DEVICE void rotate_and_write(const RopeKvArgs& args) {
    constexpr u32 EACH = MAX_HEAD_DIM / 2 / WARP;
    u32 dim = args.kv.head_dim, heads = args.num_heads, kv_heads = args.kv.num_kv_heads;
    u32 token = block_index_x(), head = block_index_y() * (block_threads() / WARP) + warp_index(), lane = lane_index();
    if (head >= heads + 2 * kv_heads) return;
    T* row = static_cast<T*>(args.qkv) + (u64(token) * (heads + 2 * kv_heads) + head) * dim;
    bool is_query = head < heads, is_value = head >= heads + kv_heads;

    // Pairs that turn are half the rotary dimensions apart; behind them may be dimensions that do not turn.
    u32 half = is_value ? 0 : args.half, pairs = (dim - 2 * half) / 2 + half;
    float first[EACH], second[EACH], squares = 0;
    UNROLL
    for (u32 i = 0; i < EACH; i++) {
        u32 pair = lane + i * WARP;
        first[i] = second[i] = 0;
        if (pair < pairs) {
            u32 at = pair < half ? pair : pair + half, other = pair < half ? pair + half : at + (dim - 2 * half) / 2;
            first[i] = to_float(row[at]);
            second[i] = to_float(row[other]);
            squares += first[i] * first[i] + second[i] * second[i];
        }
    }
    const float* weight = is_value ? nullptr : is_query ? args.q_norm : args.k_norm;
    float scale = weight ? 1.0f / sqrtf(reduce_lanes<Sum>(squares) / float(dim) + args.eps) : 1.0f;
    const float* angles = args.angles + u64(token) * 2 * args.half;
    u32 slot = args.slots[token];
    if (slot == NO_SLOT && !is_query) return;
    u32 kv_head = (head - heads) % kv_heads;
    Kv* cache = static_cast<Kv*>(args.cache) + kv_offset(args.kv, slot / args.kv.block_size, is_value, kv_head, slot % args.kv.block_size);
    UNROLL
    for (u32 i = 0; i < EACH; i++) {
        u32 pair = lane + i * WARP;
        if (pair >= pairs) continue;
        u32 at = pair < half ? pair : pair + half, other = pair < half ? pair + half : at + (dim - 2 * half) / 2;
        float a = first[i], b = second[i];
        if (weight) {
            a = a * scale * weight[at];
            b = b * scale * weight[other];
        }
        if (pair < half) {
            float cosine = angles[pair], sine = angles[args.half + pair], turned = a * cosine - b * sine;
            b = b * cosine + a * sine;
            a = turned;
        }
        if (is_query) {
            row[at] = narrow<T>(a);
            row[other] = narrow<T>(b);
        } else {
            cache[at] = to_cache<Kv>(a);
            cache[other] = to_cache<Kv>(b);
        }
    }
}

}  // namespace

KERNEL(rope_angles, RopeAnglesArgs, 256, compute_angles)
#define ROPE_KV(name, T)                                      \
    IF_KV_F32(KERNEL(rope_kv_##name##_f32, RopeKvArgs, 256, rotate_and_write<T, float>)) \
    IF_KV_BF16(KERNEL(rope_kv_##name##_bf16, RopeKvArgs, 256, rotate_and_write<T, bf16>)) \
    IF_KV_F16(KERNEL(rope_kv_##name##_f16, RopeKvArgs, 256, rotate_and_write<T, f16>)) \
    IF_KV_E4M3(KERNEL(rope_kv_##name##_e4m3, RopeKvArgs, 256, rotate_and_write<T, e4m3>))
IF_F32(ROPE_KV(f32, float))
IF_BF16(ROPE_KV(bf16, bf16))
IF_F16(ROPE_KV(f16, f16))
