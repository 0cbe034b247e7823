// What a kernel sees instead of a GPU: thread indices, barriers, shared memory, exchanges within a warp, atomics.
// Kernels are compiled with -fsanitize=thread, but linked with memory.cpp instead of that sanitizer's library, so that every one of
// their loads and stores is checked for bounds and races without a change to their sources.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace emulator {

struct Dim3 {
    unsigned x, y, z;
};

/// The thread that runs.
struct Current {
    Dim3 thread, block, block_dim, grid_dim;
};
extern thread_local Current current;

/// All threads of the block wait for each other; that all are at the same line is checked.
void barrier(const char* file, int line);

/// All lanes of the warp wait for each other.
void warp_barrier(const char* file, int line);

/// Every lane hands in `bytes` (at most MAX_EXCHANGE) and waits; what each gave is then at `deposit(lane)` until the lane's next exchange.
constexpr size_t MAX_EXCHANGE = 64;
void exchange(const void* mine, size_t bytes, const char* what);
const void* deposit(unsigned lane);

/// What a lane holds of the inputs of PTX's `mma.m16n8k16`, widened: pairs of neighbouring columns of A, and of rows of B.
struct Fragments {
    float a[8], b[4];
};
/// The 32 neighbouring lanes hand in theirs; the lane's part of the product is added to `d`.
void mma(float* d, const Fragments& mine);

/// Copies that are done only when they are waited for: all but the `pending` latest groups of this thread.
void copy_async(void* to, const void* from, size_t bytes);
void copy_commit();
void copy_wait(unsigned pending);

/// The block's memory whose size the launch gives.
void* dynamic_shared();

/// The block's memory for the variable that `key` stands for.
void* static_shared(const void* key, size_t bytes, size_t align);

/// Adds a kernel to what can be launched by name, with blocks of up to `threads` threads.
struct Kernel {
    Kernel(const char* name, size_t args_bytes, unsigned threads, void (*body)(const void* args), const char* file = __builtin_FILE());
};

}  // namespace emulator
