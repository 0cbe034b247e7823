// What requests ask to be changed in their rows of logits before a token is chosen, in vLLM's order: allowed tokens, bad words, tokens
// that must not come yet, biases, penalties. A grammar's mask is never broken; where the rest leaves no token, the rest gives way.
// One block for each row; `counts` is zero before and after.

#include "reduce.cuh"

/// Lists of all rows lie one after the other in `AdjustArgs::lists`; a range is its (start, end) there.
struct AdjustParams {
    /// Words of a bitmap of tokens that may be chosen; what lies beyond may not. An empty range and `has_mask` 0 allow all.
    u32 mask[2], has_mask;
    /// Only these may be chosen, where `has_allowed`.
    u32 allowed[2], has_allowed;
    /// Never chosen: stop tokens before their time.
    u32 forbidden[2];
    /// Runs of (length, tokens...): the last token may not follow the others.
    u32 bad_words[2];
    /// Pairs of (token, bits of what is added).
    u32 biases[2];
    /// Tokens of the prompt, then of the output.
    u32 prompt[2], output[2];
    float repetition_penalty, frequency_penalty, presence_penalty;
};

struct AdjustArgs {
    /// `[rows][vocabulary]`
    const float* logits;
    float* out;
    const AdjustParams* params;
    const u32* lists;
    /// `[rows][vocabulary]`
    u32* counts;
    u32 vocabulary;
};

namespace {

constexpr u32 FROM_PROMPT = 0x80000000u;

/// The row as the mask leaves it.
DEVICE void apply_mask(const AdjustArgs& args, const AdjustParams& params, const float* from, float* row) {
    const u32* mask = args.lists + params.mask[0];
    u32 words = params.mask[1] - params.mask[0];
    for (u32 i = thread_index(); i < args.vocabulary; i += block_threads()) {
        bool allowed = !params.has_mask || (i / 32 < words && mask[i / 32] >> (i % 32) & 1);
        row[i] = allowed ? from[i] : -INFINITE;
    }
    sync_block();
}

/// Whether the output ends with what stands before a word's last token.
DEVICE bool follows(const u32* word, u32 length, const u32* output, u32 output_length) {
    if (output_length + 1 < length) return false;
    for (u32 i = 0; i + 1 < length; i++) {
        if (word[i] != output[output_length - (length - 1) + i]) return false;
    }
    return true;
}

DEVICE void forbid(const AdjustArgs& args, const AdjustParams& params, float* row, u32* counts) {
    if (params.has_allowed) {
        for (u32 i = params.allowed[0] + thread_index(); i < params.allowed[1]; i += block_threads()) {
            if (args.lists[i] < args.vocabulary) atomic_or(&counts[args.lists[i]], 1);
        }
        sync_block();
        for (u32 i = thread_index(); i < args.vocabulary; i += block_threads()) {
            if (counts[i] == 0) row[i] = -INFINITE;
            counts[i] = 0;
        }
        sync_block();
    }
    // Lists may name a token twice: one thread goes through them.
    if (thread_index() == 0) {
        const u32* output = args.lists + params.output[0];
        for (u32 i = params.bad_words[0]; i < params.bad_words[1]; i += args.lists[i] + 1) {
            const u32* word = args.lists + i + 1;
            u32 length = args.lists[i], last = length > 0 ? word[length - 1] : args.vocabulary;
            if (last < args.vocabulary && follows(word, length, output, params.output[1] - params.output[0])) row[last] = -INFINITE;
        }
        for (u32 i = params.forbidden[0]; i < params.forbidden[1]; i++) {
            if (args.lists[i] < args.vocabulary) row[args.lists[i]] = -INFINITE;
        }
        for (u32 i = params.biases[0]; i < params.biases[1]; i += 2) {
            if (args.lists[i] < args.vocabulary) row[args.lists[i]] = add_rn(row[args.lists[i]], as_float(args.lists[i + 1]));
        }
    }
    sync_block();
}

/// Each token of the history once: repetition first, then frequency, then presence. Whoever takes a count away applies it.
DEVICE void penalise(const AdjustArgs& args, const AdjustParams& params, float* row, u32* counts) {
    bool repetition = params.repetition_penalty != 1;
    u32 from = repetition ? params.prompt[0] : params.prompt[1];
    for (u32 i = params.output[0] + thread_index(); i < params.output[1]; i += block_threads()) {
        if (args.lists[i] < args.vocabulary) atomic_add(&counts[args.lists[i]], 1);
    }
    for (u32 i = from + thread_index(); i < params.prompt[1]; i += block_threads()) {
        if (args.lists[i] < args.vocabulary) atomic_or(&counts[args.lists[i]], FROM_PROMPT);
    }
    sync_block();
    auto apply = [&](u32 id) {
        u32 taken = id < args.vocabulary ? atomic_exchange(&counts[id], 0) : 0, count = taken & ~FROM_PROMPT;
        if (taken == 0) return;
        float logit = row[id];
        logit = logit > 0 ? logit / params.repetition_penalty : mul_rn(logit, params.repetition_penalty);
        if (count > 0) {
            logit = add_rn(logit, -mul_rn(params.frequency_penalty, float(count)));
            logit = add_rn(logit, -params.presence_penalty);
        }
        row[id] = logit;
    };
    for (u32 i = params.output[0] + thread_index(); i < params.output[1]; i += block_threads()) apply(args.lists[i]);
    for (u32 i = from + thread_index(); i < params.prompt[1]; i += block_threads()) apply(args.lists[i]);
    sync_block();
}

DEVICE void adjust(const AdjustArgs& args) {
    SHARED(BlockScratch<float>, scratch);
    const AdjustParams& params = args.params[block_index_x()];
    u64 start = u64(block_index_x()) * args.vocabulary;
    const float* from = args.logits + start;
    float* row = args.out + start;
    u32* counts = args.counts + start;
    apply_mask(args, params, from, row);
    forbid(args, params, row, counts);
    if (params.repetition_penalty != 1 || params.frequency_penalty != 0 || params.presence_penalty != 0) penalise(args, params, row, counts);
    float best = -INFINITE;
    for (u32 i = thread_index(); i < args.vocabulary; i += block_threads()) best = greatest(best, row[i]);
    if (reduce_block<Max>(best, scratch) == -INFINITE) apply_mask(args, params, from, row);
}

}  // namespace

KERNEL(adjust_logits, AdjustArgs, 256, adjust)
