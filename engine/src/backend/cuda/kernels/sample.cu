// One token for each row of logits: temperature, then min-p, then top-k, then top-p, then a draw that is a function of the request's
// seed and the token's position. The CPU sampler's choice, but where a sum of top-p lies next to its goal.

#include "truncate.cuh"
#include "types.cuh"

struct SampleParams {
    u64 seed, position;
    float temperature, top_p;
    /// `ln(min_p) * temperature`, to be added to the greatest logit.
    float min_p_offset;
    u32 has_min_p;
    /// 0 for all.
    u32 top_k;
    u32 unused;
};

struct SampleArgs {
    /// `[rows][vocabulary]`
    const float* logits;
    const SampleParams* params;
    /// What truncation leaves: `[rows][vocabulary]` each.
    float* values;
    u32* ids;
    u32* out;
    u32 vocabulary;
};

namespace {

/// Below this temperature the choice is greedy.
constexpr float MIN_TEMPERATURE = 1e-5f;

struct SampleShared {
    BlockScratch<float> maxima;
    BlockScratch<Best> bests;
    TruncateScratch truncate;
    ChunkSums sums;
    alignas(16) float weights[CHUNK];
    u32 chunk, chosen, found;
};

struct One {
    DEVICE u32 operator()(float) const { return 1; }
};
struct Weight {
    float max, scale;
    DEVICE u64 operator()(float value) const { return integer_weight(value, max, scale); }
};

/// Where the running sum of weights passes `u` of the total; the index into the row.
DEVICE u32 draw(const Row& row, float max, float scale, double u, SampleShared& shared) {
    constexpr u32 NONE = 0xffffffffu;
    u32 chunks = div_up(row.count, CHUNK);
    sum_chunks(row, max, scale, shared.sums);
    // Thread 0's: what is left of the sum, and the last token with any weight, which is taken where rounding leaves a rest behind it.
    double left = 0;
    u32 chosen = NONE;
    if (thread_index() == 0) {
        left = sum_in_order(shared.sums, chunks) * u;
        u32 chunk = 0;
        for (; chunk + 1 < chunks && left >= shared.sums.at[chunk]; chunk++) left -= shared.sums.at[chunk];
        shared.chunk = chunk;
    }
    sync_block();
    for (u32 chunk = shared.chunk; chunk < chunks; chunk++) {
        u32 start = chunk * CHUNK, count = least(CHUNK, row.count - start);
        for (u32 i = thread_index(); i < CHUNK; i += block_threads()) {
            shared.weights[i] = i < count ? sampling_exp(mul_rn(add_rn(row.values[start + i], -max), scale)) : 0;
        }
        sync_block();
        if (thread_index() == 0) {
            bool found = false;
            for (u32 i = 0; i < count && !found; i += 4) {
                auto weights = load<4>(shared.weights + i);
                UNROLL
                for (u32 j = 0; j < 4; j++) {
                    double weight = weights.at[j];
                    if (found || weight == 0) continue;
                    chosen = start + i + j;
                    found = left < weight;
                    left -= weight;
                }
            }
            shared.chosen = chosen;
            shared.found = found;
        }
        sync_block();
        if (shared.found) break;
    }
    return shared.chosen != NONE ? shared.chosen : row_best(row, shared.bests).index;
}

DEVICE void choose_token(const SampleArgs& args) {
    SHARED(SampleShared, shared);
    u32 index = block_index_x();
    const SampleParams params = args.params[index];
    Row row = {args.logits + u64(index) * args.vocabulary, nullptr, args.vocabulary};
    float max = row_max(row, shared.maxima);
    bool finite = max - max == 0;
    if (params.temperature < MIN_TEMPERATURE || params.top_k == 1 || !finite) {
        Best best = row_best(row, shared.bests);
        if (thread_index() == 0) args.out[index] = best.index;
        return;
    }
    float scale = 1.0f / params.temperature;
    float* values = args.values + u64(index) * args.vocabulary;
    u32* ids = args.ids + u64(index) * args.vocabulary;
    if (params.has_min_p) {
        u32 bound = ordered(add_rn(max, params.min_p_offset)), top = ordered(max);
        row = keep(row, {least(bound, top), 0xffffffffu}, values, ids, shared.truncate);
    }
    if (params.top_k > 0 && params.top_k < row.count) {
        row = keep(row, take_until(row, params.top_k, One{}, shared.truncate), values, ids, shared.truncate);
    }
    if (params.top_p < 1) {
        sum_chunks(row, max, scale, shared.sums);
        double goal = sum_in_order(shared.sums, div_up(row.count, CHUNK)) * WEIGHT_UNIT * double(params.top_p);
        row = keep(row, take_until(row, goal, Weight{max, scale}, shared.truncate), values, ids, shared.truncate);
    }
    u32 chosen = draw(row, max, scale, uniform(params.seed, params.position), shared);
    if (thread_index() == 0) args.out[index] = row.ids ? row.ids[chosen] : chosen;
}

}  // namespace

KERNEL(sample, SampleArgs, SAMPLE_THREADS, choose_token)
