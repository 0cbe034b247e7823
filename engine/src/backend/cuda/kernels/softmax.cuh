// The arithmetic of attention's running softmax, for prompts and decoding alike: what both kernels do to a number is done here, each
// rounding where it stands, so that a row comes out the same to the last bit whichever kernel makes it.
#pragma once

#include "reduce.cuh"

constexpr float LOG2_E = 1.44269504f;

/// What a product of query and key counts for, in units of ln 2; minus infinity where the row does not see the position.
DEVICE float score_of(float product, bool seen, float scale, float soft_cap) {
    float score = mul_rn(product, scale);
    if (soft_cap > 0) score = mul_rn(tanhf(score / soft_cap), soft_cap);
    return seen ? mul_rn(score, LOG2_E) : -INFINITE;
}

/// What scores are taken relative to: a row that has seen nothing yet must not become NaN.
DEVICE float base_of(float maximum) { return maximum == -INFINITE ? 0 : maximum; }

/// Four scores become weights; returns their sum.
DEVICE float weigh(float& a, float& b, float& c, float& d, float base) {
    a = exp2f(add_rn(a, -base));
    b = exp2f(add_rn(b, -base));
    c = exp2f(add_rn(c, -base));
    d = exp2f(add_rn(d, -base));
    return add_rn(add_rn(a, b), add_rn(c, d));
}

/// How a split joins those before it: what each side is multiplied by.
struct Joint {
    float maximum, before, after;

    /// Where one side has seen nothing, the other stays as it is.
    static DEVICE Joint of(float maximum, float next) {
        float best = greatest(maximum, next), base = base_of(best);
        return {best, exp2f(add_rn(maximum, -base)), exp2f(add_rn(next, -base))};
    }
    DEVICE float join(float sum, float next) const { return add_rn(mul_rn(sum, before), mul_rn(next, after)); }
};
