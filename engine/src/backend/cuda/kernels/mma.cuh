// Products of small matrices by 32 neighbouring lanes: tensor cores where there are any, and the same in plain C++ elsewhere.
// The fragments' layout is that of PTX `mma.m16n8k16` with 16-bit inputs: with g = lane / 4 and t = lane % 4, a lane holds of
// A (16 x 16) rows g and g + 8 at columns 2t, 2t+1 and 2t+8, 2t+9; of B (16 x 8) column g at rows 2t, 2t+1 and 2t+8, 2t+9; and of the
// result (16 x 8) rows g and g + 8 at columns 2t, 2t+1.
#pragma once

#include "types.cuh"

/// Lanes that share a product. A warp of 64 does two at a time.
constexpr u32 TEAM = 32;

DEVICE u32 team_lane() { return thread_index() % TEAM; }
DEVICE u32 team_index() { return thread_index() / TEAM; }

template <class E>
DEVICE u32 pack_pair(float low, float high) {
    return u32(narrow<E>(low).bits) | u32(narrow<E>(high).bits) << 16;
}
#if defined(TOKENFLOW_CUDA)
template <>
DEVICE u32 pack_pair<bf16>(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <>
DEVICE u32 pack_pair<f16>(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <class E>
DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
DEVICE void mma<bf16>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
DEVICE void mma<f16>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Four 8 x 8 matrices of 16-bit elements from shared memory: lane i points at row i % 8 of matrix i / 8, 16 bytes. Of each matrix a lane
/// gets row g at columns 2t, 2t+1; transposed, column g at rows 2t, 2t+1.
template <bool TRANSPOSED, class E>
DEVICE void load_matrices(u32 (&r)[4], const E* row) {
    u32 from = static_cast<u32>(__cvta_generic_to_shared(row));
    if (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
    }
}

#else

/// What each lane of the team has: one exchange where all can be looked at afterwards, else one for each look.
template <class T>
struct Team {
    T mine;
#if defined(TOKENFLOW_EMULATOR)
    DEVICE explicit Team(T value) : mine(value) { emulator::exchange(&value, sizeof(T), "team"); }
    DEVICE T of(u32 lane) const { return *static_cast<const T*>(emulator::deposit(lane_index() / TEAM * TEAM + lane)); }
#else
    DEVICE explicit Team(T value) : mine(value) {}
    DEVICE T of(u32 lane) const { return shuffle(mine, lane_index() / TEAM * TEAM + lane); }
#endif
};

template <class E>
DEVICE float low_half(u32 pair) {
    return to_float(E{static_cast<u16>(pair)});
}
template <class E>
DEVICE float high_half(u32 pair) {
    return to_float(E{static_cast<u16>(pair >> 16)});
}

#if defined(TOKENFLOW_EMULATOR)
template <class E>
DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const emulator::Fragments mine = {{low_half<E>(a[0]), high_half<E>(a[0]), low_half<E>(a[1]), high_half<E>(a[1]), low_half<E>(a[2]),
                                       high_half<E>(a[2]), low_half<E>(a[3]), high_half<E>(a[3])},
                                      {low_half<E>(b0), high_half<E>(b0), low_half<E>(b1), high_half<E>(b1)}};
    emulator::mma(d, mine);
}
#else
template <class E>
DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    struct Part {
        u32 a[4], b[2];
    };
    const Team<Part> team(Part{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    u32 g = team_lane() / 4, t = team_lane() % 4;
    for (u32 s = 0; s < 4; s++) {
        Part rows = team.of(g * 4 + s);
        for (u32 column = 0; column < 2; column++) {
            Part columns = team.of((2 * t + column) * 4 + s);
            for (u32 row = 0; row < 2; row++) {
                for (u32 half = 0; half < 2; half++) {
                    u32 x = rows.a[row + 2 * half], y = columns.b[half];
                    d[2 * row + column] += low_half<E>(x) * low_half<E>(y) + high_half<E>(x) * high_half<E>(y);
                }
            }
        }
    }
}
#endif

/// As above.
template <bool TRANSPOSED, class E>
DEVICE void load_matrices(u32 (&r)[4], const E* row) {
    const Team<const E*> team(row);
    u32 g = team_lane() / 4, t = team_lane() % 4;
    for (u32 i = 0; i < 4; i++) {
        if (TRANSPOSED) {
            const E* first = team.of(i * 8 + 2 * t);
            const E* second = team.of(i * 8 + 2 * t + 1);
            r[i] = u32(first[g].bits) | u32(second[g].bits) << 16;
        } else {
            const E* from = team.of(i * 8 + g) + 2 * t;
            r[i] = u32(from[0].bits) | u32(from[1].bits) << 16;
        }
    }
}

#endif
