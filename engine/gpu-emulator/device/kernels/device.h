// The emulated device: its memory with a shadow that says who touched what last, and the block that runs. Shared by the emulator's own
// files and by the drivers.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "emulator.h"
#include "fiber.h"

namespace emulator {

/// At the arena's start; as much as an H100 gives a block.
constexpr size_t SHARED_BYTES = 227 << 10;
/// Between two buffers, so that a step too far leaves the buffer without reaching the next.
constexpr size_t GUARD_BYTES = 64 << 10;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_LANES = 64;

/// Who touched a place last, as one number that grows with time: a segment in the high bits (every operation, block and barrier begins
/// one), then flags, then the thread. 0 is nobody.
using Epoch = uint64_t;
constexpr unsigned SEGMENT_SHIFT = 13;
constexpr Epoch THREAD_MASK = 1023, MANY_MASK = 3 << 10, ATOMIC = 1 << 12;
/// Several lanes of the thread's warp, several warps, several blocks did so, and the number is the last one's.
constexpr Epoch MANY_LANES = 1 << 10, MANY_WARPS = 2 << 10, MANY_BLOCKS = 3 << 10;

struct Cell {
    Epoch write, read;
};

/// One cell stands for a page, until somebody touches less of it: then one for each 16 bytes, and when that is too much, for each 8, and so on.
constexpr size_t PAGE_BYTES = 4096;
inline unsigned cell_shift(unsigned splits) { return splits == 0 ? 12 : 5 - splits; }

/// An operation that ran: everything from `first` up to the next one's.
struct Ran {
    Epoch first;
    unsigned stream;
    uint32_t number;
    /// For messages.
    const char* name;
};

/// Of an operation's past: the number of the last operation of each stream that it comes after.
struct Clock {
    std::vector<uint32_t> at;
    uint32_t get(unsigned stream) const { return stream < at.size() ? at[stream] : 0; }
    void set(unsigned stream, uint32_t number) {
        if (stream >= at.size()) at.resize(stream + 1);
        at[stream] = number;
    }
    void join(const Clock& other) {
        if (other.at.size() > at.size()) at.resize(other.at.size());
        for (size_t i = 0; i < other.at.size(); i++) at[i] = at[i] < other.at[i] ? other.at[i] : at[i];
    }
};

struct Buffer {
    size_t start, bytes;
    bool freed = false;
    /// The last operation of each stream that touched it.
    Clock users;
    /// The latest of them, to be quick.
    Epoch last_user = 0;
};

/// A reader that another, unordered one has replaced in its cells.
struct Reader {
    Epoch epoch;
    size_t start, end;
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
    Switch here;
    /// Whether `here` leads into the fiber's loop.
    bool started = false;
    State state = EXITED;
    /// Where it waits.
    const char* what = "";
    int line = 0;
    size_t bytes = 0;
    Dim3 index{};
    std::vector<Copy> copies;
    /// Groups of copies so far.
    unsigned copy_groups = 0;
};

struct Warp {
    /// Exchanges so far: the lowest bit says which half of the deposits is in use.
    unsigned exchanges = 0;
    alignas(16) char deposits[2][MAX_LANES][MAX_EXCHANGE];
};

struct StaticShared {
    const void* key;
    void* address;
};

struct Device {
    char* arena = nullptr;
    size_t arena_bytes = 0, used = 0;
    /// Of whole pages, and of their parts: as many for each page as it has bytes.
    Cell *wholes = nullptr, *cells = nullptr;
    /// How often each page was split.
    uint8_t* splits = nullptr;
    /// The number of the buffer that each 256 bytes belong to, plus one.
    uint32_t* owners = nullptr;
    std::vector<Buffer> buffers;
    std::map<size_t, std::vector<Reader>> readers;
    std::vector<char> shared_allocated;

    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Switch scheduler;
    char* stacks = nullptr;
    /// The thread of the operating system that started the fibers.
    unsigned long owner = 0;

    void (*body)(const void*) = nullptr;
    const void* args = nullptr;
    Current launch{};
    unsigned threads = 0;
    /// The thread that runs.
    unsigned thread = 0;
    bool in_fiber = false;
    /// The threads that run one after the other, and which of them does.
    unsigned turns[MAX_LANES] = {}, num_turns = 0, turn = 0;
    /// State of the generator that shuffles the order of threads.
    uint64_t order = 0;

    uint64_t segment = 1;
    /// Where the operation, the block, the time since its last barrier and since each warp's last one begin.
    Epoch operation_first = 0, block_first = 0, barrier_first = 0, warp_first[MAX_THREADS / 32] = {};
    /// Everything before this is ordered before the operation.
    Epoch floor = 0;
    std::vector<Ran> ran;
    /// Places in `ran` of each stream's operations.
    std::vector<std::vector<uint32_t>> ran_by_stream;
    Clock clock;
    unsigned stream = 0;
    uint32_t number = 0;

    size_t dynamic_bytes = 0, shared_used = 0;
    std::vector<StaticShared> statics;
    /// What went wrong first; empty while nothing has.
    std::string error;

    explicit Device(size_t arena_bytes);
    ~Device();
    Device(const Device&) = delete;
    bool usable() const { return arena && wholes && cells && splits && owners; }
    bool holds(const void* address) const { return size_t(static_cast<const char*>(address) - arena) < arena_bytes; }

    void* allocate(size_t bytes);
    /// The buffer that holds the address, freed or not.
    Buffer* buffer_at(const void* address);
    void release(Buffer& buffer);
    std::string place(size_t offset);

    /// All that follows is the `number`th operation of the stream, which comes after what its clock says.
    void begin_operation(unsigned stream, uint32_t number, const Clock& clock, const char* name);
    bool is_ordered_operation(Epoch epoch) const;
    const Ran& operation_of(Epoch epoch) const;
    /// The operation as a whole reads or writes these bytes. Whether it may.
    bool touch(const void* start, size_t bytes, bool is_write);

    void release_shared();
    void access(const void* address, size_t bytes, bool is_write, bool atomic);
    bool is_ordered(Epoch other, bool atomic) const;
    void split(size_t page, unsigned times);
    void use(Buffer& buffer);
    void refuse(Cell& cell, size_t offset, bool is_write, bool atomic);
    bool check_readers(size_t offset, size_t bytes);
    void keep_reader(size_t offset, size_t bytes, Epoch read);
    void fail(const std::string& reason);
    bool run(Dim3 grid, Dim3 block, size_t dynamic, void (*body)(const void*), const void* args, uint64_t seed);
    bool run_block(Dim3 index);
    void switch_to(unsigned thread);
    void resume(unsigned thread, Switch& from);
    void wait(Fiber::State state, const char* what, int line, size_t bytes);
    void next_segment() { segment++; }
    Epoch now() const { return segment << SEGMENT_SHIFT; }
    bool advance_warp(unsigned warp);
    bool release_barrier();
    std::string waiting();
};

/// The device that this OS thread runs a kernel on.
extern thread_local Device* device;

/// From now on this thread's loads and stores are the device's, or nobody's.
void watch(Device* on);
/// Of the kernels that were compiled in. The drivers are the same for all.
unsigned warp_lanes();
/// A load or store of the thread that runs.
void check_access(const void* address, size_t bytes, bool is_write);

struct Registered {
    const char* name;
    /// The source file's name.
    std::string file;
    size_t args_bytes;
    /// Of a block, at most.
    unsigned max_threads;
    void (*body)(const void*);
};
/// A source that was compiled in, and a hash (FNV-1a) of its text.
struct Source {
    std::string file;
    uint64_t hash;
};
const std::vector<Source>& sources();
const std::vector<Registered>& kernels();
const Registered* find_kernel(const char* name);

}  // namespace emulator
