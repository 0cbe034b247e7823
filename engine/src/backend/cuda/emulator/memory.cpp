// The memory of the emulated device. A shadow of every byte says who touched it last, by which an access is judged:
// out of bounds, read before it was written (shared memory only), or unordered with another thread's.
// The compiler calls the functions at the end for every load and store of a kernel.

#include <sys/mman.h>

#include <cstring>

#include "device.h"

namespace emulator {

static void* reserve(size_t bytes) {
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return start == MAP_FAILED ? nullptr : start;
}

Device::Device() {
    arena = static_cast<char*>(reserve(ARENA_BYTES));
    shadow = static_cast<Shadow*>(reserve(ARENA_BYTES * sizeof(Shadow)));
}

Device::~Device() {
    if (arena) munmap(arena, ARENA_BYTES);
    if (shadow) munmap(shadow, ARENA_BYTES * sizeof(Shadow));
    if (stacks) munmap(stacks, size_t(MAX_THREADS) * (64 << 10));
}

/// Filled with what is a NaN in every floating point type and an index far out of bounds.
void* Device::allocate(size_t bytes) {
    if (bytes > ARENA_BYTES - used || ARENA_BYTES - used - bytes < GUARD_BYTES) return nullptr;
    void* start = arena + used;
    mark_allocated(used, bytes);
    std::memset(start, 0xff, bytes);
    used = (used + bytes + GUARD_BYTES + 255) / 256 * 256;
    return start;
}

void Device::mark_allocated(size_t offset, size_t bytes) {
    for (size_t i = offset; i < offset + bytes; i++) shadow[i].allocated = true;
}

/// A block begins with none.
void Device::release_shared() {
    std::memset(static_cast<void*>(shadow), 0, shared_used * sizeof(Shadow));
    std::memset(arena, 0xff, shared_used);
    shared_used = 0;
    statics.clear();
}

static std::string thread_name(uint16_t thread) { return "thread " + std::to_string(thread); }

void Device::access(const void* address, size_t bytes, bool is_write, bool atomic) {
    size_t offset = size_t(static_cast<const char*>(address) - arena);
    if (offset >= ARENA_BYTES || !error.empty()) return;
    bool shared = offset < SHARED_BYTES;
    const char* kind = is_write ? "write" : "read";
    auto place = [&](size_t i) {
        size_t start = i;
        while (start > 0 && shadow[start - 1].allocated) start--;
        return std::string(shared ? "shared" : "global") + " memory, byte " + std::to_string(i - start) + " of its buffer";
    };
    if (offset % bytes != 0 && bytes <= 16) return fail(std::string("misaligned ") + kind + " of " + std::to_string(bytes) + " bytes");
    uint16_t lanes = EMULATED_WARP, me = uint16_t(thread), warp_barriers = warps[thread / lanes].barriers;
    for (size_t i = offset; i < offset + bytes; i++) {
        Shadow& byte = shadow[i];
        if (!byte.allocated) return fail(std::string(kind) + " out of bounds of every buffer, in " + (shared ? "shared" : "global") + " memory");
        if (shared && !is_write && !byte.written) return fail(thread_name(me) + " reads what nobody has written: " + place(i));

        // Whether all that `other` stands for happened before this.
        auto ordered = [&](const Access& other) {
            if (other.serial < first_serial || (atomic && other.atomic)) return true;
            if (other.serial != serial || other.many_blocks) return false;
            if (other.barriers < barriers) return true;
            if (other.many_warps || other.thread / lanes != me / lanes) return false;
            if (other.warp_barriers < warp_barriers) return true;
            return other.thread == me && !other.many_lanes;
        };
        auto race = [&](const Access& other, const char* did) {
            std::string who = other.serial == serial ? thread_name(other.thread) : "a thread of another block";
            fail("race: " + thread_name(me) + " " + kind + "s what " + who + " " + did + ", with nothing to order them, in " + place(i));
        };
        if (!ordered(byte.write)) return race(byte.write, "wrote");
        if (is_write) {
            if (!ordered(byte.read)) return race(byte.read, "read");
            byte.write = {serial, barriers, warp_barriers, me, false, false, false, atomic};
            byte.written = true;
            continue;
        }
        Access& read = byte.read;
        bool fresh = read.serial < first_serial || (read.serial == serial && read.barriers < barriers && !read.many_blocks);
        Access now = {serial, barriers, warp_barriers, me, false, false, false, atomic};
        if (!fresh) {
            now.many_blocks = read.many_blocks || read.serial != serial;
            now.many_warps = read.many_warps || read.thread / lanes != me / lanes;
            now.many_lanes = read.thread != me || (read.many_lanes && read.warp_barriers == warp_barriers);
            now.atomic = atomic && read.atomic;
        }
        read = now;
    }
}

void* dynamic_shared() { return device->arena; }

void* static_shared(const void* key, size_t bytes, size_t align) {
    Device& d = *device;
    for (const StaticShared& variable : d.statics) {
        if (variable.key == key) return variable.address;
    }
    // A gap that belongs to nobody, so that a step too far is seen.
    size_t offset = (d.shared_used + 64 + align - 1) / align * align;
    if (offset + bytes > SHARED_BYTES) {
        d.fail("more shared memory than a block has");
        return d.arena;
    }
    d.mark_allocated(offset, bytes);
    d.shared_used = offset + bytes;
    d.statics.push_back({key, d.arena + offset});
    return d.arena + offset;
}

}  // namespace emulator

extern "C" {
#define CHECK(size)                                                                                                  \
    void __tsan_read##size(void* p) { if (emulator::device) emulator::device->access(p, size, false, false); }      \
    void __tsan_write##size(void* p) { if (emulator::device) emulator::device->access(p, size, true, false); }      \
    void __tsan_unaligned_read##size(void* p) { __tsan_read##size(p); }                                             \
    void __tsan_unaligned_write##size(void* p) { __tsan_write##size(p); }                                           \
    void __tsan_volatile_read##size(void* p) { __tsan_read##size(p); }                                              \
    void __tsan_volatile_write##size(void* p) { __tsan_write##size(p); }
CHECK(1)
CHECK(2)
CHECK(4)
CHECK(8)
CHECK(16)
#undef CHECK

// Atomics are ordered with each other, not with plain accesses. Threads are coroutines, so that a plain operation will do.
#define ATOMIC(bits, name, expression)                                                                        \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t* p, uint##bits##_t value, int) {      \
        if (emulator::device) emulator::device->access(const_cast<uint##bits##_t*>(p), bits / 8, true, true); \
        uint##bits##_t before = *p;                                                                           \
        *p = expression;                                                                                      \
        return before;                                                                                        \
    }
ATOMIC(32, fetch_add, before + value)
ATOMIC(64, fetch_add, before + value)
ATOMIC(32, fetch_or, before | value)
ATOMIC(32, exchange, value)
#undef ATOMIC

void __tsan_read_range(void* p, size_t size) { if (emulator::device && size) emulator::device->access(p, size, false, false); }
void __tsan_write_range(void* p, size_t size) { if (emulator::device && size) emulator::device->access(p, size, true, false); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
