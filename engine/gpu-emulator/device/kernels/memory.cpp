// The memory of the emulated device. A shadow of every place says who touched it last, by which an access is judged: out of bounds or
// freed, read before it was written (shared memory only), or unordered with another thread's, block's or stream's.
// The compiler calls the functions at the end for every load and store of a kernel.

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "device.h"

namespace emulator {

template <class T>
static T* reserve(size_t count) {
    void* start = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return start == MAP_FAILED ? nullptr : static_cast<T*>(start);
}

constexpr size_t OWNED_BYTES = 256;

Device::Device(size_t bytes) : arena_bytes(bytes), used((SHARED_BYTES + GUARD_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES), shared_allocated(SHARED_BYTES) {
    arena = reserve<char>(bytes);
    cells = reserve<Cell>(bytes);
    wholes = reserve<Cell>(bytes / PAGE_BYTES);
    splits = reserve<uint8_t>(bytes / PAGE_BYTES);
    owners = reserve<uint32_t>(bytes / OWNED_BYTES);
}

Device::~Device() {
    if (arena) munmap(arena, arena_bytes);
    if (cells) munmap(cells, arena_bytes * sizeof(Cell));
    if (wholes) munmap(wholes, arena_bytes / PAGE_BYTES * sizeof(Cell));
    if (splits) munmap(splits, arena_bytes / PAGE_BYTES);
    if (owners) munmap(owners, arena_bytes / OWNED_BYTES * sizeof(uint32_t));
    if (stacks) munmap(stacks, size_t(MAX_THREADS) * (64 << 10));
}

/// What the start of a buffer is filled with: a NaN in every floating point type and an index far out of bounds.
constexpr size_t FILLED_BYTES = 16 << 20;

void* Device::allocate(size_t bytes) {
    if (bytes > arena_bytes - used || arena_bytes - used - bytes < GUARD_BYTES + PAGE_BYTES) return nullptr;
    void* start = arena + used;
    Buffer buffer;
    buffer.start = used;
    buffer.bytes = bytes;
    buffers.push_back(buffer);
    for (size_t i = used / OWNED_BYTES; i * OWNED_BYTES < used + bytes; i++) owners[i] = uint32_t(buffers.size());
    std::memset(start, 0xff, std::min(bytes, FILLED_BYTES));
    used = (used + bytes + GUARD_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    return start;
}

Buffer* Device::buffer_at(const void* address) {
    size_t offset = size_t(static_cast<const char*>(address) - arena);
    if (offset >= arena_bytes || owners[offset / OWNED_BYTES] == 0) return nullptr;
    Buffer& buffer = buffers[owners[offset / OWNED_BYTES] - 1];
    return offset < buffer.start + buffer.bytes ? &buffer : nullptr;
}

/// The addresses are never given out again, so that late uses are seen.
void Device::release(Buffer& buffer) {
    buffer.freed = true;
    size_t bytes = (buffer.bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (bytes == 0) return;
    madvise(arena + buffer.start / PAGE_BYTES * PAGE_BYTES, bytes, MADV_DONTNEED);
    madvise(cells + buffer.start / PAGE_BYTES * PAGE_BYTES, bytes * sizeof(Cell), MADV_DONTNEED);
    readers.erase(readers.lower_bound(buffer.start / PAGE_BYTES), readers.lower_bound((buffer.start + bytes) / PAGE_BYTES));
}

std::string Device::place(size_t offset) {
    if (offset < SHARED_BYTES) {
        size_t start = offset;
        while (start > 0 && shared_allocated[start - 1]) start--;
        return "shared memory, byte " + std::to_string(offset - start) + " of its buffer";
    }
    uint32_t owner = owners[offset / OWNED_BYTES];
    if (owner == 0) return "global memory";
    const Buffer& buffer = buffers[owner - 1];
    return "global memory, byte " + std::to_string(offset - buffer.start) + " of buffer " + std::to_string(owner) + " of " +
           std::to_string(buffer.bytes) + " bytes";
}

void Device::use(Buffer& buffer) {
    buffer.last_user = operation_first;
    buffer.users.set(stream, number);
}

/// One cell for the page becomes one for each 16 bytes, then for half as many, and so on.
void Device::split(size_t page, unsigned times) {
    Cell* first = cells + page * PAGE_BYTES;
    if (splits[page] == 0 && times > 0) {
        std::fill_n(first, PAGE_BYTES / 16, wholes[page]);
        splits[page] = 1;
    }
    for (; splits[page] < times; splits[page]++) {
        for (size_t i = PAGE_BYTES >> cell_shift(splits[page]); i-- > 0;) first[2 * i] = first[2 * i + 1] = first[i];
    }
}

/// How often a page must be split for accesses of these bytes.
static unsigned splits_for(size_t bytes) { return bytes % 16 == 0 ? 1 : bytes % 8 == 0 ? 2 : bytes % 4 == 0 ? 3 : bytes % 2 == 0 ? 4 : 5; }

void Device::begin_operation(unsigned of, uint32_t nth, const Clock& after, const char* name) {
    stream = of;
    number = nth;
    clock = after;
    next_segment();
    operation_first = block_first = barrier_first = now();
    std::fill(std::begin(warp_first), std::end(warp_first), now());
    if (stream >= ran_by_stream.size()) ran_by_stream.resize(stream + 1);
    floor = operation_first;
    for (unsigned s = 0; s < ran_by_stream.size(); s++) {
        if (s == stream) continue;
        const std::vector<uint32_t>& places = ran_by_stream[s];
        uint32_t known = clock.get(s);
        auto late = std::partition_point(places.begin(), places.end(), [&](uint32_t place) { return ran[place].number <= known; });
        if (late != places.end()) floor = std::min(floor, ran[*late].first);
    }
    ran_by_stream[stream].push_back(uint32_t(ran.size()));
    ran.push_back({operation_first, stream, number, name});
}

const Ran& Device::operation_of(Epoch epoch) const {
    auto after = std::partition_point(ran.begin(), ran.end(), [&](const Ran& one) { return one.first <= epoch; });
    return *(after - 1);
}

/// Whether the operation of that time comes before this one.
bool Device::is_ordered_operation(Epoch epoch) const {
    if (epoch < floor) return true;
    const Ran& other = operation_of(epoch);
    return other.stream == stream || other.number <= clock.get(other.stream);
}

static bool overlaps(const Reader& reader, size_t start, size_t end) { return reader.start < end && start < reader.end; }

bool Device::check_readers(size_t offset, size_t bytes) {
    auto found = readers.find(offset / PAGE_BYTES);
    if (found == readers.end()) return true;
    auto& all = found->second;
    all.erase(std::remove_if(all.begin(), all.end(), [&](const Reader& r) { return r.epoch < operation_first && is_ordered_operation(r.epoch); }),
              all.end());
    for (const Reader& reader : all) {
        if (reader.epoch < operation_first && overlaps(reader, offset, offset + bytes)) {
            const Ran& other = operation_of(reader.epoch);
            fail("unordered: writes what " + std::string(other.name) + " on stream " + std::to_string(other.stream) +
                 " reads, and nothing orders the two; in " + place(offset));
            return false;
        }
    }
    return true;
}

void Device::keep_reader(size_t offset, size_t bytes, Epoch read) {
    Epoch first = operation_of(read).first;
    auto& all = readers[offset / PAGE_BYTES];
    for (Reader& one : all) {
        if (one.epoch != first) continue;
        if (one.start <= offset && offset + bytes <= one.end) return;
        if (one.end == offset) {
            one.end = offset + bytes;
            return;
        }
    }
    all.push_back({first, offset, offset + bytes});
}

bool Device::touch(const void* start, size_t bytes, bool is_write) {
    if (bytes == 0) return true;
    Buffer* buffer = buffer_at(start);
    const char* kind = is_write ? "write" : "read";
    size_t offset = size_t(static_cast<const char*>(start) - arena), end = offset + bytes;
    if (!buffer) {
        fail(std::string(kind) + " out of bounds of every buffer");
        return false;
    }
    if (buffer->freed) {
        fail(std::string(kind) + " after free, in " + place(offset));
        return false;
    }
    if (end > buffer->start + buffer->bytes) {
        fail(std::string(kind) + " of " + std::to_string(bytes) + " bytes, beyond the end, in " + place(offset));
        return false;
    }
    use(*buffer);
    const Epoch mine = operation_first;
    while (offset < end) {
        size_t page = offset / PAGE_BYTES, stop = std::min(end, (page + 1) * PAGE_BYTES);
        bool whole = stop - offset == PAGE_BYTES;
        if (!whole) split(page, splits_for(offset | stop));
        unsigned shift = cell_shift(splits[page]);
        Cell* first = splits[page] == 0 ? wholes + page : cells + page * PAGE_BYTES;
        if (is_write && !readers.empty() && !check_readers(offset, stop - offset)) return false;
        for (size_t i = (offset % PAGE_BYTES) >> shift; i < (stop - page * PAGE_BYTES) >> shift; i++) {
            Cell& cell = first[i];
            if (cell.write >= floor || cell.read >= floor) {
                refuse(cell, page * PAGE_BYTES + (i << shift), is_write, false);
                if (!error.empty()) return false;
            }
            (is_write ? cell.write : cell.read) = mine;
        }
        if (whole && is_write) {
            // All that came before is ordered before this.
            splits[page] = 0;
            wholes[page] = {mine, 0};
        }
        offset = stop;
    }
    return true;
}

/// Looks closer at an access that is not plainly in order: fails, or finds that it is.
void Device::refuse(Cell& cell, size_t offset, bool is_write, bool atomic) {
    const char* kind = is_write ? "writes" : "reads";
    auto judge = [&](Epoch other, const char* did, const char* does) {
        if (other < operation_first) {
            if (is_ordered_operation(other)) return true;
            const Ran& one = operation_of(other);
            fail(std::string("unordered: ") + kind + " what " + one.name + " on stream " + std::to_string(one.stream) + " " + does +
                 ", and nothing orders the two; in " + place(offset));
            return false;
        }
        if (!in_fiber || is_ordered(other, atomic)) return true;
        std::string who = other >= block_first ? "thread " + std::to_string(other & THREAD_MASK) : "a thread of another block";
        fail("race: thread " + std::to_string(thread) + " " + kind + " what " + who + " " + did + ", with nothing to order them, in " + place(offset));
        return false;
    };
    if (!judge(cell.write, "wrote", "writes")) return;
    if (is_write) {
        judge(cell.read, "read", "reads");
    } else if (cell.read >= floor && cell.read < operation_first && !is_ordered_operation(cell.read)) {
        keep_reader(offset, size_t(1) << cell_shift(splits[offset / PAGE_BYTES]), cell.read);
    }
}

/// A block begins with none.
void Device::release_shared() {
    std::fill_n(shared_allocated.begin(), shared_used, char(0));
    shared_used = 0;
    statics.clear();
}

/// Whether all that `other` stands for, in this operation, happened before this thread's next step.
inline bool Device::is_ordered(Epoch other, bool atomic) const {
    if (other < operation_first || (atomic && other & ATOMIC)) return true;
    Epoch many = other & MANY_MASK;
    if (other < block_first || many == MANY_BLOCKS) return false;
    if (other < barrier_first) return true;
    unsigned warp = thread / EMULATED_WARP;
    if (many == MANY_WARPS || (other & THREAD_MASK) / EMULATED_WARP != warp) return false;
    return other < warp_first[warp] || (other & (THREAD_MASK | MANY_MASK)) == thread;
}

/// Inlined, so that each size and kind has its own.
inline __attribute__((always_inline)) void Device::access(const void* address, size_t bytes, bool is_write, bool atomic) {
    size_t offset = size_t(static_cast<const char*>(address) - arena);
    if (!error.empty()) return;
    const bool shared = offset < SHARED_BYTES;
    if (offset % bytes != 0) {
        return fail(std::string("misaligned ") + (is_write ? "write" : "read") + " of " + std::to_string(bytes) + " bytes");
    }
    if (shared) {
        if (!shared_allocated[offset] || !shared_allocated[offset + bytes - 1]) {
            return fail(std::string(is_write ? "write" : "read") + " out of bounds of every buffer, in shared memory");
        }
    } else {
        uint32_t owner = owners[offset / OWNED_BYTES];
        if (owner == 0 || offset + bytes > buffers[owner - 1].start + buffers[owner - 1].bytes) {
            return fail(std::string(is_write ? "write" : "read") + " out of bounds of every buffer, in global memory");
        }
        Buffer& buffer = buffers[owner - 1];
        if (buffer.last_user != operation_first) {
            if (buffer.freed) return fail(std::string(is_write ? "write" : "read") + " after free, in " + place(offset));
            use(buffer);
        }
    }
    size_t page = offset / PAGE_BYTES;
    unsigned shift = cell_shift(splits[page]);
    if ((size_t(1) << shift) > bytes) {
        split(page, splits_for(bytes));
        shift = cell_shift(splits[page]);
    }
    Cell* first = cells + page * PAGE_BYTES + ((offset % PAGE_BYTES) >> shift);
    const size_t count = bytes >> shift;
    const Epoch mine = now() | thread | (atomic ? ATOMIC : 0);
    const Epoch low = shared ? block_first : floor;
    if (is_write) {
        if (!shared && !readers.empty() && !check_readers(offset, bytes)) return;
        for (size_t i = 0; i < count; i++) {
            Cell& cell = first[i];
            bool fine = (cell.write < low || (cell.write >= operation_first && is_ordered(cell.write, atomic))) &&
                        (cell.read < low || (cell.read >= operation_first && is_ordered(cell.read, atomic)));
            if (!fine) {
                refuse(cell, offset + (i << shift), true, atomic);
                if (!error.empty()) return;
            }
            cell.write = mine;
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        Cell& cell = first[i];
        if (shared && cell.write < block_first) {
            return fail("thread " + std::to_string(thread) + " reads what nobody has written: " + place(offset + (i << shift)));
        }
        const Epoch read = cell.read;
        if (!(cell.write < low || (cell.write >= operation_first && is_ordered(cell.write, atomic))) || (read >= low && read < operation_first)) {
            refuse(cell, offset + (i << shift), false, atomic);
            if (!error.empty()) return;
        }
        Epoch many = 0;
        if (read >= (shared ? block_first : operation_first)) {
            const Epoch was = read & MANY_MASK;
            const unsigned warp = thread / EMULATED_WARP;
            if (read < block_first || was == MANY_BLOCKS) {
                many = MANY_BLOCKS;
            } else if (read < barrier_first) {
                many = 0;
            } else if (was == MANY_WARPS || (read & THREAD_MASK) / EMULATED_WARP != warp) {
                many = MANY_WARPS;
            } else if (read < warp_first[warp]) {
                many = 0;
            } else if (was == MANY_LANES || (read & THREAD_MASK) != thread) {
                many = MANY_LANES;
            }
        }
        cell.read = mine | many;
    }
}

/// The arena of the device that this thread runs a kernel on.
static thread_local const char* watched;
static thread_local size_t watched_bytes;

static inline bool is_watched(const void* address) { return size_t(static_cast<const char*>(address) - watched) < watched_bytes; }

void watch(Device* on) {
    device = on;
    watched = on ? on->arena : nullptr;
    watched_bytes = on ? on->arena_bytes : 0;
}

void check_access(const void* address, size_t bytes, bool is_write) {
    if (is_watched(address)) device->access(address, bytes, is_write, false);
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
    std::fill_n(d.shared_allocated.begin() + offset, bytes, char(1));
    d.shared_used = offset + bytes;
    d.statics.push_back({key, d.arena + offset});
    return d.arena + offset;
}

}  // namespace emulator

extern "C" {
// Most of what a kernel touches is its own stack: that is told apart before anything else.
#define CHECK(size)                                                                                   \
    void __tsan_read##size(void* p) { if (emulator::is_watched(p)) emulator::device->access(p, size, false, false); }  \
    void __tsan_write##size(void* p) { if (emulator::is_watched(p)) emulator::device->access(p, size, true, false); }  \
    void __tsan_unaligned_read##size(void* p) { __tsan_read##size(p); }                               \
    void __tsan_unaligned_write##size(void* p) { __tsan_write##size(p); }                             \
    void __tsan_volatile_read##size(void* p) { __tsan_read##size(p); }                                \
    void __tsan_volatile_write##size(void* p) { __tsan_write##size(p); }
CHECK(1)
CHECK(2)
CHECK(4)
CHECK(8)
CHECK(16)
#undef CHECK

// Atomics are ordered with each other, not with plain accesses. Threads are coroutines, so that a plain operation will do.
#define ATOMIC_OPERATION(bits, name, expression)                                                              \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t* p, uint##bits##_t value, int) {      \
        void* place = const_cast<uint##bits##_t*>(p);                                                         \
        if (emulator::is_watched(place)) emulator::device->access(place, bits / 8, true, true);               \
        uint##bits##_t before = *p;                                                                           \
        *p = expression;                                                                                      \
        return before;                                                                                        \
    }
ATOMIC_OPERATION(32, fetch_add, before + value)
ATOMIC_OPERATION(64, fetch_add, before + value)
ATOMIC_OPERATION(32, fetch_or, before | value)
ATOMIC_OPERATION(32, exchange, value)
#undef ATOMIC_OPERATION

// What a compiler turns into memcpy or memset is as good as a loop of the widest accesses that fit.
static void check_range(void* p, size_t size, bool is_write) {
    if (!emulator::is_watched(p)) return;
    for (size_t i = 0; i < size;) {
        size_t at = reinterpret_cast<size_t>(p) + i, step = 16;
        while (at % step != 0 || i + step > size) step /= 2;
        emulator::device->access(reinterpret_cast<void*>(at), step, is_write, false);
        i += step;
    }
}
void __tsan_read_range(void* p, size_t size) { check_range(p, size, false); }
void __tsan_write_range(void* p, size_t size) { check_range(p, size, true); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
