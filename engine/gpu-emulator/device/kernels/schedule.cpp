// Runs the threads of a block as coroutines, in an order that a seed decides. A warp's lanes go on together after an exchange,
// a block's threads after a barrier; where some can never arrive, the launch fails and says who waits where.

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>

#include "device.h"

namespace emulator {

thread_local Current current;
thread_local Device* device;

constexpr size_t STACK_BYTES = 64 << 10;

/// splitmix64
static uint64_t next_random(uint64_t& state) {
    uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/// Every fiber's loop: one kernel body for each block that it is part of.
static void fiber_loop() {
    for (;;) {
        device->body(device->args);
        device->wait(Fiber::EXITED, "", 0, 0);
    }
}

/// Runs the fiber, and those whose turn is after its own, until the last of them waits.
void Device::switch_to(unsigned index) {
    in_fiber = true;
    resume(index, scheduler);
    in_fiber = false;
}

void Device::resume(unsigned index, Switch& from) {
    Fiber& fiber = fibers[index];
    thread = index;
    current.thread = fiber.index;
    if (!fiber.started) {
        fiber.started = true;
        prepare(fiber.here, stacks + size_t(index) * STACK_BYTES, STACK_BYTES, fiber_loop);
    }
    switch_stacks(from, fiber.here);
}

/// On to the next whose turn it is, until somebody comes back here.
void Device::wait(Fiber::State state, const char* what, int line, size_t bytes) {
    Fiber& fiber = fibers[thread];
    fiber.state = state;
    fiber.what = what;
    fiber.line = line;
    fiber.bytes = bytes;
    if (++turn < num_turns) {
        resume(turns[turn], fiber.here);
    } else {
        switch_stacks(fiber.here, scheduler);
    }
}

/// The first error counts. A thread that fails goes no further, nor does any other.
void Device::fail(const std::string& reason) {
    if (error.empty()) {
        Dim3 b = launch.block;
        error = reason + " (block " + std::to_string(b.x) + "," + std::to_string(b.y) + "," + std::to_string(b.z) + ")";
    }
    if (in_fiber) switch_stacks(fibers[thread].here, scheduler);
}

void barrier(const char* file, int line) { device->wait(Fiber::AT_BARRIER, file, line, 0); }

void warp_barrier(const char*, int line) {
    device->wait(Fiber::IN_WARP, "sync_warp", line, 0);
}

void exchange(const void* mine, size_t bytes, const char* what) {
    Device& d = *device;
    Warp& warp = d.warps[d.thread / EMULATED_WARP];
    char* to = warp.deposits[(warp.exchanges + 1) % 2][d.thread % EMULATED_WARP];
    std::copy_n(static_cast<const char*>(mine), bytes, to);
    d.wait(Fiber::IN_WARP, what, 0, bytes);
}

const void* deposit(unsigned lane) {
    const Warp& warp = device->warps[device->thread / EMULATED_WARP];
    return warp.deposits[warp.exchanges % 2][lane % EMULATED_WARP];
}

/// Runs what can run of a warp; whether anything could.
bool Device::advance_warp(unsigned index) {
    const unsigned lanes = EMULATED_WARP, first = index * lanes;
    bool any = false;
    for (;;) {
        unsigned offset = unsigned(next_random(order));
        num_turns = turn = 0;
        for (unsigned i = 0; i < lanes; i++) {
            // An odd multiple of a lane's number is a permutation of the lanes.
            unsigned thread = first + (i * (offset | 1) + (offset >> 8)) % lanes;
            if (fibers[thread].state == Fiber::RUNNABLE) turns[num_turns++] = thread;
        }
        if (num_turns > 0) {
            any = true;
            switch_to(turns[0]);
            if (!error.empty()) return true;
        }
        const Fiber& one = fibers[first];
        for (unsigned i = 0; i < lanes; i++) {
            const Fiber& other = fibers[first + i];
            bool same = other.state == Fiber::IN_WARP && other.what == one.what && other.line == one.line && other.bytes == one.bytes;
            if (!same) return any;
        }
        any = true;
        if (one.bytes > 0) {
            warps[index].exchanges++;
        } else {
            next_segment();
            warp_first[index] = now();
        }
        for (unsigned i = 0; i < lanes; i++) fibers[first + i].state = Fiber::RUNNABLE;
    }
}

/// Lets all threads go on where all are at the same barrier.
bool Device::release_barrier() {
    const Fiber& one = fibers[0];
    for (unsigned i = 0; i < threads; i++) {
        const Fiber& other = fibers[i];
        if (other.state != Fiber::AT_BARRIER || other.line != one.line || other.what != one.what) return false;
    }
    next_segment();
    barrier_first = now();
    for (unsigned i = 0; i < threads; i++) fibers[i].state = Fiber::RUNNABLE;
    return true;
}

/// Who is where, one entry for each place.
std::string Device::waiting() {
    std::string text;
    std::vector<std::string> places;
    for (unsigned i = 0; i < threads; i++) {
        const Fiber& fiber = fibers[i];
        std::string file = fiber.what;
        file = file.substr(file.find_last_of('/') + 1);
        std::string place = fiber.state == Fiber::EXITED ? "has returned" : "is at " + file + ":" + std::to_string(fiber.line);
        if (std::find(places.begin(), places.end(), place) == places.end() && places.size() < 4) {
            places.push_back(place);
            text += (text.empty() ? "thread " : ", thread ") + std::to_string(i) + " " + place;
        }
    }
    return text;
}

bool Device::run_block(Dim3 index) {
    release_shared();
    std::fill_n(shared_allocated.begin(), dynamic_bytes, char(1));
    shared_used = dynamic_bytes;
    launch.block = index;
    current = launch;
    next_segment();
    block_first = barrier_first = now();
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].state = Fiber::RUNNABLE;
        fibers[i].copies.clear();
        fibers[i].copy_groups = 0;
    }
    std::fill(std::begin(warp_first), std::end(warp_first), now());
    unsigned num_warps = threads / EMULATED_WARP;
    for (;;) {
        bool any = false;
        unsigned start = unsigned(next_random(order)) % num_warps;
        for (unsigned i = 0; i < num_warps; i++) {
            any |= advance_warp((start + i) % num_warps);
            if (!error.empty()) {
                // Threads were left in the middle.
                for (Fiber& fiber : fibers) fiber.started = false;
                return false;
            }
        }
        bool done = std::all_of(fibers.begin(), fibers.begin() + threads, [](const Fiber& f) { return f.state == Fiber::EXITED; });
        if (done) return true;
        if (!release_barrier() && !any) {
            fail("divergence: " + waiting());
            for (Fiber& fiber : fibers) fiber.started = false;
            return false;
        }
    }
}

bool Device::run(Dim3 grid, Dim3 block, size_t dynamic, void (*kernel)(const void*), const void* arguments, uint64_t seed) {
    error.clear();
    thread = 0;
    threads = block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || threads % EMULATED_WARP != 0) error = "a block has whole warps and up to 1024 threads";
    if (dynamic > SHARED_BYTES) error = "more dynamic shared memory than a block has";
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) error = "a grid has no blocks";
    if (grid.y > 65535 || grid.z > 65535) error = "a grid of more than 65535 blocks in y or z";
    if (!stacks) {
        void* memory = mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) error = "no memory for stacks";
        stacks = static_cast<char*>(memory);
        fibers.resize(MAX_THREADS);
        warps.resize(MAX_THREADS / EMULATED_WARP);
    }
    if (!error.empty()) return false;
    if (owner != pthread_self()) {
        // What the compiler keeps on a fiber's stack of its thread's variables is worth nothing on another thread.
        for (Fiber& fiber : fibers) fiber.started = false;
        owner = pthread_self();
    }
    for (unsigned i = 0; i < threads; i++) fibers[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    body = kernel;
    args = arguments;
    order = seed;
    dynamic_bytes = dynamic;
    launch = {{}, {}, block, grid};
    watch(this);
    bool ok = true;
    // Blocks run in any order on a device: here from the last or from the first.
    unsigned count = grid.x * grid.y * grid.z;
    for (unsigned i = 0; i < count && ok; i++) {
        unsigned n = seed & 1 ? count - 1 - i : i;
        ok = run_block({n % grid.x, n / grid.x % grid.y, n / (grid.x * grid.y)});
    }
    release_shared();
    watch(nullptr);
    return ok;
}

}  // namespace emulator
