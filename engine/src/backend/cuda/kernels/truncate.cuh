// Dropping unlikely tokens: by a bound, by number (top-k) and by probability (top-p). The least value that stays is found digit by digit
// of its bits, by counts or by weights as integers, so that the order in which threads add does not matter.
#pragma once

#include "sampling.cuh"

/// Weights up to 1 as integers: 2^19 - 1 tokens of weight 1 just fit.
constexpr double WEIGHT_UNIT = 35184372088832.0;

/// What tokens of each digit amount to. Few digits are common, so that lanes add to copies of their own; and to halves of 64 bits, as shared
/// memory adds 32 bits at once and 64 in a loop of attempts.
struct DigitSums {
    static constexpr u32 COPIES = 8;
    u32 low[256][COPIES], high[256][COPIES];
    u64 totals[256];

    DEVICE void clear() {
        for (u32 i = thread_index(); i < 256 * COPIES; i += block_threads()) low[i / COPIES][i % COPIES] = high[i / COPIES][i % COPIES] = 0;
    }
    DEVICE void add(u32 digit, u32 amount) { atomic_add(&low[digit][thread_index() % COPIES], amount); }
    DEVICE void add(u32 digit, u64 amount) {
        u32 part = u32(amount), before = atomic_add(&low[digit][thread_index() % COPIES], part);
        // Whatever the order, every time that the low half runs over is seen once.
        u32 rest = u32(amount >> 32) + (before + part < part);
        if (rest > 0) atomic_add(&high[digit][thread_index() % COPIES], rest);
    }
    /// Between barriers.
    DEVICE void total() {
        for (u32 d = thread_index(); d < 256; d += block_threads()) {
            u64 sum = 0;
            UNROLL
            for (u32 i = 0; i < COPIES; i++) sum += (u64(high[d][i]) << 32) + low[d][i];
            totals[d] = sum;
        }
    }
};

struct TruncateScratch {
    DigitSums digits;
    BlockScratch<u32> warps;
    /// What the thread that looks at the digits found.
    u32 digit, equals;
    double reached;
};

/// What stays: values above `threshold` (as `ordered`), and the first `equals` of those that are equal to it.
struct Kept {
    u32 threshold, equals;
};

/// Number of threads before this one, and in all, for which `flag` holds.
struct Counted {
    u32 before, all;
};
DEVICE Counted count_threads(bool flag, BlockScratch<u32>& scratch) {
    u32 sum = flag;
    for (u32 step = 1; step < WARP; step *= 2) {
        u32 other = shuffle(sum, lane_index() - step);
        if (lane_index() >= step) sum += other;
    }
    sync_block();
    if (lane_index() == WARP - 1) scratch.warps[warp_index()] = sum;
    sync_block();
    Counted counted = {sum - flag, 0};
    for (u32 w = 0; w < block_threads() / WARP; w++) {
        if (w == warp_index()) counted.before += counted.all;
        counted.all += scratch.warps[w];
    }
    return counted;
}

/// Copies what stays, in its order, to `values` and `ids`, which may be those of `row`.
DEVICE Row keep(const Row& row, Kept kept, float* values, u32* ids, TruncateScratch& scratch) {
    u32 count = 0, equals = 0;
    for (u32 first = 0; first < row.count; first += block_threads()) {
        u32 i = first + thread_index();
        bool exists = i < row.count;
        float value = exists ? row.values[i] : 0;
        u32 id = !exists ? 0 : row.ids ? row.ids[i] : i, order = ordered(value);
        bool equal = exists && order == kept.threshold;
        Counted same = count_threads(equal, scratch.warps);
        bool stays = exists && (order > kept.threshold || (equal && equals + same.before < kept.equals));
        Counted staying = count_threads(stays, scratch.warps);
        // All have read what now may be overwritten: the counting waited for them.
        if (stays) {
            values[count + staying.before] = value;
            ids[count + staying.before] = id;
        }
        equals += same.all;
        count += staying.all;
    }
    sync_block();
    return {values, ids, count};
}

/// The weight that a value stands for, as an integer.
DEVICE u64 integer_weight(float value, float max, float scale) {
    return u64(double(sampling_exp(mul_rn(add_rn(value, -max), scale))) * WEIGHT_UNIT + 0.5);
}

/// From the highest digit on, the first with which the goal is reached, at the latest the lowest that holds anything; and what those above
/// it reach. One thread, which adds in this order.
DEVICE void find_digit(double goal, double reached, TruncateScratch& scratch) {
    constexpr u32 TOGETHER = 8;
    u32 digit = 255;
    double above = reached;
    bool is_reached = false;
    for (u32 end = 256; end > 0 && !is_reached; end -= TOGETHER) {
        u64 totals[TOGETHER];
        UNROLL
        for (u32 i = 0; i < TOGETHER; i++) totals[i] = scratch.digits.totals[end - 1 - i];
        UNROLL
        for (u32 i = 0; i < TOGETHER; i++) {
            if (is_reached || totals[i] == 0) continue;
            digit = end - 1 - i;
            above = reached;
            reached += double(totals[i]);
            is_reached = !(reached < goal);
        }
    }
    scratch.digit = digit;
    scratch.reached = above;
}

/// Finds what stays of a row whose likeliest tokens are taken until they amount to `goal`: tokens of amount 1 each, or of their weight.
template <class Amount>
DEVICE Kept take_until(const Row& row, double goal, Amount amount, TruncateScratch& scratch) {
    u32 prefix = 0;
    double reached = 0;
    for (u32 shift = 32; shift > 0;) {
        shift -= 8;
        scratch.digits.clear();
        sync_block();
        for (u32 i = thread_index(); i < row.count; i += block_threads()) {
            u32 order = ordered(row.values[i]);
            if (shift == 24 || order >> (shift + 8) == prefix) scratch.digits.add(order >> shift & 255, amount(row.values[i]));
        }
        sync_block();
        scratch.digits.total();
        sync_block();
        if (thread_index() == 0) find_digit(goal, reached, scratch);
        sync_block();
        prefix = prefix << 8 | scratch.digit;
        reached = scratch.reached;
    }
    if (thread_index() == 0) {
        // All that are left are equal.
        u32 bits = prefix >> 31 ? prefix & 0x7fffffffu : ~prefix;
        double each = double(amount(as_float(bits)));
        double needed = each > 0 ? ceil((goal - reached) / each) : 4294967295.0;
        scratch.equals = needed < 1 ? 1 : needed > 4294967295.0 ? 4294967295u : u32(needed);
    }
    sync_block();
    return {prefix, scratch.equals};
}
