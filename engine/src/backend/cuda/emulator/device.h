// The emulated device: its memory with a shadow for every byte, and the block that runs. Shared by the emulator's own files.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

constexpr size_t ARENA_BYTES = size_t(1) << 30;
/// At the arena's start; as much as an H100 gives a block.
constexpr size_t SHARED_BYTES = 227 << 10;
/// Between two buffers, so that a step too far leaves the buffer without reaching the next.
constexpr size_t GUARD_BYTES = 64 << 10;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_LANES = 64;

/// Who touched a byte last. A serial numbers blocks over all launches, so that 0 is nobody.
struct Access {
    uint32_t serial;
    uint16_t barriers;
    uint16_t warp_barriers;
    uint16_t thread;
    /// Several threads of one warp, several warps, several blocks; all accesses were atomic.
    bool many_lanes, many_warps, many_blocks, atomic;
};

struct Shadow {
    Access write, read;
    bool allocated, written;
};

/// An asynchronous copy that has not been waited for.
struct Copy {
    void* to;
    char data[16];
    size_t bytes;
    unsigned group;
};

/// A thread of the block, as a coroutine of its own stack.
struct Fiber {
    enum State { RUNNABLE, AT_BARRIER, IN_WARP, EXITED };
    jmp_buf here;
    ucontext_t start;
    char* stack = nullptr;
    /// Whether `here` leads into the fiber's loop.
    bool started = false;
    State state = EXITED;
    /// Where it waits.
    const char* what = "";
    int line = 0;
    size_t bytes = 0;
    std::vector<Copy> copies;
    /// Groups of copies so far.
    unsigned copy_groups = 0;
};

struct Warp {
    /// Exchanges so far: the lowest bit says which half of the deposits is in use.
    unsigned exchanges = 0;
    uint16_t barriers = 0;
    alignas(16) char deposits[2][MAX_LANES][MAX_EXCHANGE];
};

struct StaticShared {
    const void* key;
    void* address;
};

struct Device {
    char* arena = nullptr;
    Shadow* shadow = nullptr;
    size_t used = SHARED_BYTES + GUARD_BYTES;

    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    jmp_buf scheduler;
    char* stacks = nullptr;

    void (*body)(const void*) = nullptr;
    const void* args = nullptr;
    Current launch{};
    unsigned threads = 0;
    /// The thread that runs.
    unsigned thread = 0;
    bool in_fiber = false;
    /// State of the generator that shuffles the order of threads.
    uint64_t order = 0;

    uint32_t serial = 0, first_serial = 0;
    uint16_t barriers = 0;
    size_t dynamic_bytes = 0, shared_used = 0;
    std::vector<StaticShared> statics;
    /// What went wrong first; empty while nothing has.
    std::string error;

    Device();
    ~Device();
    void* allocate(size_t bytes);
    void release_shared();
    void mark_allocated(size_t offset, size_t bytes);
    void access(const void* address, size_t bytes, bool is_write, bool atomic);
    void fail(const std::string& reason);
    bool run(Dim3 grid, Dim3 block, size_t dynamic, void (*body)(const void*), const void* args, uint64_t seed);
    bool run_block(Dim3 index);
    void switch_to(unsigned thread);
    void wait(Fiber::State state, const char* what, int line, size_t bytes);
    bool advance_warp(unsigned warp);
    bool release_barrier();
    std::string waiting();
};

/// The device that this OS thread runs a kernel on.
extern thread_local Device* device;

}  // namespace emulator
