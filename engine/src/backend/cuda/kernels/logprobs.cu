// How likely a row of raw logits makes a token, its rank, and the likeliest tokens beside it. One block for each row.

#include "sampling.cuh"

struct LogprobsArgs {
    /// `[rows][vocabulary]`
    const float* logits;
    const u32* tokens;
    /// Likeliest tokens wanted of each row, up to `max_top`.
    const u32* num_top;
    float* logprobs;
    u32* ranks;
    /// `[rows][max_top]`, likeliest first.
    u32* top_ids;
    float* top_logprobs;
    u32 vocabulary, max_top;
};

namespace {

struct LogprobsShared {
    BlockScratch<float> maxima;
    BlockScratch<Best> bests;
    BlockScratch<u32> counts;
    ChunkSums sums;
};

DEVICE void find_logprobs(const LogprobsArgs& args) {
    SHARED(LogprobsShared, shared);
    u32 index = block_index_x();
    Row row = {args.logits + u64(index) * args.vocabulary, nullptr, args.vocabulary};
    float max = row_max(row, shared.maxima);
    double log_sum = max;
    if (max - max == 0) {
        sum_chunks(row, max, 1.0f, shared.sums);
        log_sum += log(sum_in_order(shared.sums, div_up(row.count, CHUNK)));
    }
    float own = row.values[args.tokens[index]];
    u32 likelier = 0;
    for (u32 i = thread_index(); i < row.count; i += block_threads()) likelier += row.values[i] > own;
    likelier = reduce_block<Sum>(likelier, shared.counts);
    if (thread_index() == 0) {
        args.logprobs[index] = float(double(own) - log_sum);
        args.ranks[index] = likelier + 1;
    }
    Best last = {as_float(0x7fc00000u), 0};
    for (u32 k = 0; k < least(args.num_top[index], args.max_top); k++) {
        // The first of all, then the first behind the last one. What equals minus infinity comes in the order of its ids.
        Best best = {-INFINITE, 0xffffffffu};
        for (u32 i = thread_index(); i < row.count; i += block_threads()) {
            float value = row.values[i] == row.values[i] ? row.values[i] : -INFINITE;
            bool behind = k == 0 || value < last.value || (value == last.value && i > last.index);
            if (behind) best = BestOf::of(best, Best{value, i});
        }
        last = reduce_block<BestOf>(best, shared.bests);
        if (thread_index() == 0) {
            args.top_ids[index * args.max_top + k] = last.index;
            args.top_logprobs[index * args.max_top + k] = float(double(row.values[last.index]) - log_sum);
        }
    }
}

}  // namespace

KERNEL(logprobs, LogprobsArgs, SAMPLE_THREADS, find_logprobs)
