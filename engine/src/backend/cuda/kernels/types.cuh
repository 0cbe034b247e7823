// Element types of activations, weights and caches, and how they become floats and back. All are plain bits in memory, so that no
// vendor's header is needed; conversions round to nearest even, as the CPU backend's do.
#pragma once

#include "device.cuh"

struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};
/// OCP 8-bit floating point: four bits of exponent, three of mantissa, no infinity.
struct e4m3 {
    u8 bits;
};

/// Bits of two bf16, the first in the low half.
DEVICE float low_bf16(u32 pair) { return as_float(pair << 16); }
DEVICE float high_bf16(u32 pair) { return as_float(pair & 0xffff0000u); }

#if defined(TOKENFLOW_CUDA)

DEVICE u16 bf16_bits(float x) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
DEVICE u16 f16_bits(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
DEVICE float f16_value(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

#else

DEVICE u16 bf16_bits(float x) {
    u32 bits = as_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
/// The rounded mantissa carries into the exponent, and that into infinity.
DEVICE u16 f16_bits(float x) {
    u32 bits = as_bits(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return 0x7fff;
    if (size >= 0x47800000u) return static_cast<u16>(sign | 0x7c00u);
    if (size < 0x38800000u) {
        // In units of the least subnormal; adding 2^23 leaves the rounded integer in the mantissa.
        return static_cast<u16>(sign | (as_bits(as_float(size) * 16777216.0f + 8388608.0f) & 0xffffu));
    }
    return static_cast<u16>(sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1)) >> 13));
}
DEVICE float f16_value(u16 bits) {
    u32 sign = u32(bits & 0x8000u) << 16, rest = u32(bits & 0x7fffu) << 13;
    if (rest >= 0x0f800000u) return as_float(sign | 0x7f800000u | (rest & 0x7fffffu));
    // Exponent and mantissa in an f32's place are the value times 2^-112, subnormals included.
    return as_float(sign | rest) * as_float((127u + 112u) << 23);
}

#endif

DEVICE float e4m3_value(u8 bits) {
    if ((bits & 0x7f) == 0x7f) return as_float(0x7fc00000u);
    return as_float((u32(bits & 0x80) << 24) | (u32(bits & 0x7f) << 20)) * as_float((127u + 120u) << 23);
}
/// Values out of range become the greatest, 448; NaN stays NaN.
DEVICE u8 e4m3_bits(float x) {
#if defined(TOKENFLOW_CUDA) && __CUDA_ARCH__ >= 890
    u16 both;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(both) : "f"(0.0f), "f"(x));
    return static_cast<u8>(both);
#else
    u32 all = as_bits(x), sign = (all >> 24) & 0x80u;
    if ((all & 0x7fffffffu) > 0x7f800000u) return 0x7f;
    float size = least(as_float(all & 0x7fffffffu), 448.0f);
    u32 bits = as_bits(size);
    u32 normal = ((bits + 0x7ffffu + ((bits >> 20) & 1)) >> 20) - (120u << 3);
    u32 subnormal = as_bits(size * 512.0f + 8388608.0f) & 0xffu;
    return static_cast<u8>(sign | (size < 1.0f / 64.0f ? subnormal : normal));
#endif
}

/// Two e4m3 as two bf16, the first in the low half; exact. What is NaN in e4m3 becomes 480.
DEVICE u32 expand_pair(u16 pair) {
    u32 apart = u32(pair & 0xff) | u32(pair >> 8) << 16;
    // Exponent and mantissa in a bf16's place are the value times 2^-120, subnormals included.
    u32 bits = (apart & 0x00800080u) << 8 | (apart & 0x007f007fu) << 4;
#if defined(TOKENFLOW_CUDA)
    u32 scaled;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(scaled) : "r"(bits), "r"(0x7b807b80u), "r"(0x80008000u));
    return scaled;
#else
    float scale = as_float((127u + 120u) << 23), low = low_bf16(bits) * scale, high = high_bf16(bits) * scale;
    return as_bits(low) >> 16 | (as_bits(high) & 0xffff0000u);
#endif
}

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return as_float(u32(x.bits) << 16); }
DEVICE float to_float(f16 x) { return f16_value(x.bits); }
DEVICE float to_float(e4m3 x) { return e4m3_value(x.bits); }
DEVICE float to_float(i8 x) { return static_cast<float>(x); }

template <class T>
struct Narrow;
template <>
struct Narrow<float> {
    static DEVICE float from(float x) { return x; }
};
template <>
struct Narrow<bf16> {
    static DEVICE bf16 from(float x) { return {bf16_bits(x)}; }
};
template <>
struct Narrow<f16> {
    static DEVICE f16 from(float x) { return {f16_bits(x)}; }
};
template <>
struct Narrow<e4m3> {
    static DEVICE e4m3 from(float x) { return {e4m3_bits(x)}; }
};

/// Rounds to the nearest, ties to even.
template <class T>
DEVICE T narrow(float x) {
    return Narrow<T>::from(x);
}

/// `N` neighbours as one access; the address must be a multiple of their size.
template <class T, u32 N>
struct alignas(sizeof(T) * N) Vec {
    T at[N];
};
template <u32 N, class T>
DEVICE Vec<T, N> load(const T* p) {
    return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <u32 N, class T>
DEVICE void store(T* p, const Vec<T, N>& values) {
    *reinterpret_cast<Vec<T, N>*>(p) = values;
}
