// The activations' definitions.
#pragma once

#include "device.cuh"

/// `x / (1 + e^-x)`
struct Silu {
    static DEVICE float of(float x) { return x / (1.0f + expf(-x)); }
};
/// `x / 2 * (1 + erf(x / sqrt(2)))`
struct Gelu {
    static DEVICE float of(float x) { return x * 0.5f * (1.0f + erff(x * 0.70710678f)); }
};
/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
struct GeluTanh {
    static DEVICE float of(float x) { return x * 0.5f * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x))); }
};
