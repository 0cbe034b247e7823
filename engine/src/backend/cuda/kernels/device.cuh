// One source for three compilers: nvcc or NVRTC, hipcc or hiprtc, and the emulator's C++ compiler.
// Everything that these call by different names is here; kernels use only what this header offers and assume no warp of 32 lanes.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#if defined(TOKENFLOW_EMULATOR)

#include <type_traits>

#include "emulator.h"

#define DEVICE inline
#define UNROLL
constexpr u32 WARP = EMULATED_WARP;

#define thread_index() (emulator::current.thread.x)
#define block_threads() (emulator::current.block_dim.x)
#define block_index_x() (emulator::current.block.x)
#define block_index_y() (emulator::current.block.y)
#define block_index_z() (emulator::current.block.z)
#define grid_size_x() (emulator::current.grid_dim.x)
#define grid_size_y() (emulator::current.grid_dim.y)
#define sync_block() emulator::barrier(__FILE__, __LINE__)
#define sync_warp() emulator::warp_barrier(__FILE__, __LINE__)

/// A variable in shared memory, one for the block.
#define SHARED(type, name)    \
    static const char name##_key = 0; \
    type& name = *static_cast<type*>(emulator::static_shared(&name##_key, sizeof(type), alignof(type)))
/// Shared memory whose size the launch gives.
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(emulator::dynamic_shared())

/// Makes `body(args)` launchable as `name`, with blocks of up to `threads` threads.
#define KERNEL(name, Args, threads, ...)                                                                                          \
    static const emulator::Kernel name##_kernel(#name, sizeof(Args), threads, [](const void* p) __attribute__((no_sanitize("thread"))) { \
        const Args args = *static_cast<const Args*>(p);                                                        \
        __VA_ARGS__(args);                                                                                     \
    });

/// As `KERNEL`, with at least `blocks` on a multiprocessor: fewer than the compiler would choose by itself, where it would rather spill.
#define KERNEL_OF(name, Args, threads, blocks, ...) KERNEL(name, Args, threads, __VA_ARGS__)

template <class T>
DEVICE T exchange_with(T value, u32 lane) {
    emulator::exchange(&value, sizeof(T), "shuffle");
    return *static_cast<const T*>(emulator::deposit(lane));
}
template <class T>
DEVICE T shuffle(T value, u32 lane) {
    return exchange_with(value, lane);
}
template <class T>
DEVICE T shuffle_xor(T value, u32 mask) {
    return exchange_with(value, (thread_index() % WARP) ^ mask);
}

DEVICE float as_float(u32 bits) {
    union { u32 u; float f; } x = {bits};
    return x.f;
}
DEVICE u32 as_bits(float value) {
    union { float f; u32 u; } x = {value};
    return x.u;
}
/// Compiled without contraction, so that these are single operations.
DEVICE float mul_rn(float a, float b) { return a * b; }
DEVICE float add_rn(float a, float b) { return a + b; }

DEVICE u32 atomic_add(u32* p, u32 value) {
    return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
DEVICE u64 atomic_add(u64* p, u64 value) {
    return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
DEVICE u32 atomic_or(u32* p, u32 value) {
    return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}
DEVICE u32 atomic_exchange(u32* p, u32 value) {
    return __atomic_exchange_n(p, value, __ATOMIC_RELAXED);
}

#else

#if defined(__HIP__) || defined(__HIPCC__)
#if !defined(__HIPCC_RTC__)
#include <hip/hip_runtime.h>
#endif
#define LAUNCH_ARGS(Args) const Args args
// 64 on gfx9, 32 from gfx10 on.
#if defined(__AMDGCN_WAVEFRONT_SIZE) && __AMDGCN_WAVEFRONT_SIZE == 64
constexpr u32 WARP = 64;
#elif defined(__GFX8__) || defined(__GFX9__)
constexpr u32 WARP = 64;
#else
constexpr u32 WARP = 32;
#endif
#else
#define TOKENFLOW_CUDA
#define LAUNCH_ARGS(Args) const __grid_constant__ Args args
constexpr u32 WARP = 32;
#endif

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")

DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 block_threads() { return blockDim.x; }
DEVICE u32 block_index_x() { return blockIdx.x; }
DEVICE u32 block_index_y() { return blockIdx.y; }
DEVICE u32 block_index_z() { return blockIdx.z; }
DEVICE u32 grid_size_x() { return gridDim.x; }
DEVICE u32 grid_size_y() { return gridDim.y; }
DEVICE void sync_block() { __syncthreads(); }

#define SHARED(type, name) __shared__ type name
#define DYNAMIC_SHARED(type, name)                     \
    extern __shared__ __align__(16) char shared_memory[]; \
    type* name = reinterpret_cast<type*>(shared_memory)
#define KERNEL(name, Args, threads, ...) \
    extern "C" __global__ void __launch_bounds__(threads) name(LAUNCH_ARGS(Args)) { __VA_ARGS__(args); }
#define KERNEL_OF(name, Args, threads, blocks, ...) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(LAUNCH_ARGS(Args)) { __VA_ARGS__(args); }

#if defined(TOKENFLOW_CUDA)
DEVICE void sync_warp() { __syncwarp(); }
template <class T>
DEVICE T shuffle(T value, u32 lane) {
    return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
DEVICE T shuffle_xor(T value, u32 mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
#else
// Lanes of a wavefront are in step; what remains is to keep the compiler from moving memory accesses.
DEVICE void sync_warp() { __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront"); __builtin_amdgcn_wave_barrier(); }
template <class T>
DEVICE T shuffle(T value, u32 lane) {
    // Of any type, word by word.
    union {
        T value;
        int words[(sizeof(T) + 3) / 4];
    } from = {value}, to = {value};
    UNROLL
    for (u32 i = 0; i < (sizeof(T) + 3) / 4; i++) to.words[i] = __shfl(from.words[i], static_cast<int>(lane), WARP);
    return to.value;
}
template <class T>
DEVICE T shuffle_xor(T value, u32 mask) {
    return shuffle(value, (threadIdx.x % WARP) ^ mask);
}
#endif

DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float value) { return __float_as_uint(value); }
/// Never contracted to a fused multiply-add.
DEVICE float mul_rn(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }
DEVICE u32 atomic_add(u32* p, u32 value) { return atomicAdd(p, value); }
DEVICE u64 atomic_add(u64* p, u64 value) { return atomicAdd(p, value); }
DEVICE u32 atomic_or(u32* p, u32 value) { return atomicOr(p, value); }
DEVICE u32 atomic_exchange(u32* p, u32 value) { return atomicExch(p, value); }

#endif

#define INFINITE (as_float(0x7f800000u))

DEVICE u32 lane_index() { return thread_index() % WARP; }
DEVICE u32 warp_index() { return thread_index() / WARP; }

template <class T>
DEVICE T least(T a, T b) {
    return b < a ? b : a;
}
template <class T>
DEVICE T greatest(T a, T b) {
    return a < b ? b : a;
}
DEVICE u32 div_up(u32 a, u32 b) { return (a + b - 1) / b; }
