// Weight matrices `[features][columns]` as they lie on the device, and how some neighbouring columns of a feature become floats: what a
// format fetches can wait in registers until it is decoded. Fetched bits that are all zero are weights of zero.
// Encodings of checkpoints are split into planes when they are loaded, so that every load is aligned and of 16 bytes.
#pragma once

#include "select.cuh"
#include "types.cuh"

struct WeightArgs {
    /// Values or codes, `[features][columns]`; 4-bit codes have the even column in the low half of a byte.
    const void* codes;
    /// Plain: none. Q8_0: f16 `[features][columns / 32]`. Q4_K, Q5_K: pairs of f16 (scale, minimum) `[features][columns / 256]`.
    /// Q6_K: f16 `[features][columns / 256]`. Int4: f16 `[features][groups]`. FP8: f32 `[features / scale_features][columns / group]`,
    /// rounded up.
    const void* scales;
    /// Q4_K, Q5_K: pairs of bytes (6-bit scale, minimum) `[features][columns / 32]`. Q6_K: signed bytes `[features][columns / 16]`.
    /// Int4: bytes `[features][groups]`, or null where all are 8, as in Q4_0 (groups of 32). Others: none.
    const void* offsets;
    /// What codes have above their four bits, the first column in a byte's lowest bits. Q5_K: a bit each, `[features][columns / 8]` bytes.
    /// Q6_K: two bits each, `[features][columns / 4]` bytes. Others: none.
    const void* high;
    u32 features, columns;
    /// Columns that share a scale: Int4 (a multiple of 32) and FP8.
    u32 group;
    /// Features that share a scale: FP8.
    u32 scale_features;
};

/// Values as they are. `N` is 1 where columns are no multiple of 8.
template <class W, u32 N>
struct Plain {
    static constexpr u32 COLUMNS = N;
    typedef Vec<W, N> Raw;
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        return ::load<N>(static_cast<const W*>(w.codes) + feature * w.columns + column);
    }
    static DEVICE void decode(const Raw& raw, float (&values)[N]) {
        UNROLL
        for (u32 i = 0; i < N; i++) values[i] = to_float(raw.at[i]);
    }
};

/// Signed bytes, an f16 scale for each 32 columns.
struct Q8_0 {
    static constexpr u32 COLUMNS = 16;
    struct Raw {
        Vec<i8, 16> codes;
        f16 scale;
    };
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        return {::load<16>(static_cast<const i8*>(w.codes) + feature * w.columns + column),
                static_cast<const f16*>(w.scales)[feature * (w.columns / 32) + column / 32]};
    }
    static DEVICE void decode(const Raw& raw, float (&values)[16]) {
        float scale = to_float(raw.scale);
        UNROLL
        for (u32 i = 0; i < 16; i++) values[i] = to_float(raw.codes.at[i]) * scale;
    }
};

/// 32 columns of 4-bit codes.
DEVICE void unpack_nibbles(const Vec<u8, 16>& bytes, float (&values)[32], float scale, float offset) {
    UNROLL
    for (u32 i = 0; i < 16; i++) {
        values[2 * i] = float(bytes.at[i] & 15) * scale + offset;
        values[2 * i + 1] = float(bytes.at[i] >> 4) * scale + offset;
    }
}

/// GGUF's K-quants of 4 bits: `scale * six_bits * code - minimum * six_bits`.
struct Q4_K {
    static constexpr u32 COLUMNS = 32;
    struct Raw {
        Vec<u8, 16> codes;
        Vec<f16, 2> factors;
        Vec<u8, 2> six_bits;
        DEVICE float scale() const { return to_float(factors.at[0]) * float(six_bits.at[0]); }
        DEVICE float offset() const { return -(to_float(factors.at[1]) * float(six_bits.at[1])); }
    };
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        return {::load<16>(static_cast<const u8*>(w.codes) + (feature * w.columns + column) / 2),
                ::load<2>(static_cast<const f16*>(w.scales) + (feature * (w.columns / 256) + column / 256) * 2),
                ::load<2>(static_cast<const u8*>(w.offsets) + (feature * (w.columns / 32) + column / 32) * 2)};
    }
    static DEVICE void decode(const Raw& raw, float (&values)[32]) { unpack_nibbles(raw.codes, values, raw.scale(), raw.offset()); }
};

/// The same of 5 bits.
struct Q5_K {
    static constexpr u32 COLUMNS = 32;
    struct Raw {
        Q4_K::Raw low;
        u32 high;
    };
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        return {Q4_K::fetch(w, feature, column), static_cast<const u32*>(w.high)[(feature * w.columns + column) / 32]};
    }
    static DEVICE void decode(const Raw& raw, float (&values)[32]) {
        float scale = raw.low.scale(), offset = raw.low.offset();
        UNROLL
        for (u32 i = 0; i < 32; i++) {
            u32 byte = raw.low.codes.at[i / 2], low = i % 2 ? byte >> 4 : byte & 15;
            values[i] = float(low | (raw.high >> i & 1) << 4) * scale + offset;
        }
    }
};

/// GGUF's K-quants of 6 bits: `scale * signed_byte * (code - 32)`.
struct Q6_K {
    static constexpr u32 COLUMNS = 32;
    struct Raw {
        Vec<u8, 16> codes;
        Vec<u32, 2> high;
        f16 scale;
        Vec<i8, 2> steps;
    };
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        return {::load<16>(static_cast<const u8*>(w.codes) + (feature * w.columns + column) / 2),
                ::load<2>(static_cast<const u32*>(w.high) + (feature * w.columns + column) / 16),
                static_cast<const f16*>(w.scales)[feature * (w.columns / 256) + column / 256],
                ::load<2>(static_cast<const i8*>(w.offsets) + (feature * w.columns + column) / 16)};
    }
    static DEVICE void decode(const Raw& raw, float (&values)[32]) {
        float scale = to_float(raw.scale);
        UNROLL
        for (u32 i = 0; i < 32; i++) {
            u32 byte = raw.codes.at[i / 2], low = i % 2 ? byte >> 4 : byte & 15, top = raw.high.at[i / 16] >> (i % 16 * 2) & 3;
            values[i] = (scale * to_float(raw.steps.at[i / 16])) * (float(low | top << 4) - 32.0f);
        }
    }
};

/// AWQ, GPTQ and GGUF's Q4_0: `(code - zero) * scale` in groups of columns. Where groups were scattered, the host has sorted the columns.
struct Int4 {
    static constexpr u32 COLUMNS = 32;
    struct Raw {
        Vec<u8, 16> codes;
        f16 scale;
        u8 zero;
    };
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        u64 group = feature * div_up(w.columns, w.group) + column / w.group;
        return {::load<16>(static_cast<const u8*>(w.codes) + (feature * w.columns + column) / 2), static_cast<const f16*>(w.scales)[group],
                w.offsets ? static_cast<const u8*>(w.offsets)[group] : u8(8)};
    }
    static DEVICE void decode(const Raw& raw, float (&values)[32]) {
        float scale = to_float(raw.scale);
        unpack_nibbles(raw.codes, values, scale, -(scale * float(raw.zero)));
    }
};

/// e4m3 with an f32 scale for each block of features and columns; a block is a multiple of 16 columns wide.
struct Fp8 {
    static constexpr u32 COLUMNS = 16;
    struct Raw {
        Vec<e4m3, 16> codes;
        float scale;
    };
    static DEVICE Raw fetch(const WeightArgs& w, u64 feature, u32 column) {
        u64 block = feature / w.scale_features * div_up(w.columns, w.group) + column / w.group;
        return {::load<16>(static_cast<const e4m3*>(w.codes) + feature * w.columns + column), static_cast<const float*>(w.scales)[block]};
    }
    static DEVICE void decode(const Raw& raw, float (&values)[16]) {
        UNROLL
        for (u32 i = 0; i < 16; i++) values[i] = to_float(raw.codes.at[i]) * raw.scale;
    }
};

/// Columns `column..` of a feature, as many as the format has together.
template <class Format>
DEVICE void load_weights(const WeightArgs& w, u64 feature, u32 column, float (&values)[Format::COLUMNS]) {
    Format::decode(Format::fetch(w, feature, column), values);
}
