// A GPU's driver over the emulated device, in no vendor's words: `cuda/` and `rocm/` give it their names.
//
// Operations are queued when they are issued and run later, on whatever thread waits for them or calls the driver, in an order that
// streams, events and a seed decide. Every operation has a clock that says what it comes after; memory remembers who touched it, so that
// two operations with nothing between them are told even when they happened to run in the right order.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "../kernels/device.h"
#include "status.h"

namespace driver {

using emulator::Clock;
using emulator::Device;
using emulator::Dim3;

enum Progress { MIXED, EAGER, LAZY };

struct Options {
    uint64_t seed = 1;
    Progress progress = MIXED;
    size_t memory_bytes = size_t(2) << 30;
    unsigned devices = 1, multiprocessors = 132;
    /// "sm_90", "gfx942"
    std::string arch = "sm_90";
    std::string name = "Emulated GPU";
};

/// In the order in which `emulator_counters` hands them out.
struct Counters {
    uint64_t allocations, frees, pinned_allocations, pinned_frees, stream_waits, event_waits, context_waits, event_queries, launches,
        graph_launches, graphs, copies, fills, products, heuristics, modules, compilations, errors, bytes_in_use, peak_bytes;
};

struct Gpu;
struct Stream;
struct Capture;

/// A place in a stream.
struct Point {
    Stream* stream;
    uint32_t number;
    Clock clock;
    int64_t nanoseconds = -1;
};

/// A matrix as cublasLt describes it.
struct Matrix {
    int type;
    uint64_t rows, columns;
    int64_t leading;
    /// 0: columns are contiguous, 1: rows are.
    int order = 0;
};

/// `d = alpha * op(a) * op(b) + beta * c`
struct Product {
    bool transposed[2];
    const char *a, *b, *c;
    char *d, *workspace;
    size_t workspace_bytes;
    Matrix layouts[4];
    float alpha, beta;
};

struct Operation {
    enum Kind { TO_DEVICE, TO_HOST, ON_DEVICE, FILL, LAUNCH, PRODUCT, RECORD, WAIT };
    Kind kind;
    const char* name = "";
    Stream* stream = nullptr;
    uint32_t number = 0;
    Clock clock;

    char* to = nullptr;
    const char* from = nullptr;
    size_t bytes = 0;
    /// What a fill repeats, of 1, 2 or 4 bytes.
    uint32_t value = 0;
    unsigned unit = 1;
    /// What was in memory that is not pinned when the copy was issued.
    std::vector<char> staged;

    const emulator::Registered* kernel = nullptr;
    Dim3 grid{}, block{};
    size_t dynamic = 0;
    std::vector<char> args;

    std::shared_ptr<Product> product;
    std::shared_ptr<Point> point;
    /// In a graph: which record this is, or waits for.
    unsigned slot = 0, lane = 0;
};

struct Stream {
    unsigned id;
    Gpu* gpu;
    std::deque<Operation> pending;
    uint32_t issued = 0, done = 0;
    Clock clock;
    Capture* capture = nullptr;
    unsigned lane = 0;
};

struct Event {
    bool timing;
    /// The last record; null before the first.
    std::shared_ptr<Point> point;
    /// Where the last record was captured.
    Capture* capture = nullptr;
    Clock captured;
    unsigned slot = 0;
};

struct Graph {
    Gpu* gpu;
    std::vector<Operation> operations;
    unsigned lanes = 1, slots = 0;
};

struct Executable {
    Graph graph;
    /// Streams of all lanes but the first, which is the stream that it is launched on.
    std::vector<Stream*> lanes;
    std::shared_ptr<Point> last;
};

enum CaptureMode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

struct Capture {
    Graph* graph;
    CaptureMode mode;
    std::thread::id thread;
    std::vector<Stream*> lanes;
    std::vector<Clock> clocks;
    /// Why it has become useless.
    std::string invalid;
    bool active = true;
};

struct Module {
    Gpu* gpu;
    std::string file;
    std::vector<const emulator::Registered*> kernels;
};

struct Function {
    Module* module;
    const emulator::Registered* kernel;
    size_t max_dynamic;
};

struct Gpu {
    unsigned ordinal;
    Device device;
    size_t bytes_in_use = 0;
    unsigned retained = 0;
    /// The first error of an operation: every later call returns it.
    Status sticky = OK;
    std::vector<Stream*> streams;
    explicit Gpu(unsigned ordinal) : ordinal(ordinal), device(size_t(64) << 30) {}
};

/// What all calls share; they hold its lock.
struct State {
    std::mutex lock;
    Options options;
    uint64_t random;
    bool initialised = false;
    std::vector<std::unique_ptr<Gpu>> gpus;
    std::vector<Stream*> streams;
    /// What is complete as the host knows.
    Clock host;
    /// Handles that are valid. Those that no longer are stay allocated, so that none is mistaken for another.
    std::set<const void*> alive;
    std::vector<Capture*> captures;
    Counters counters{};
    std::string last_error;
    State();
};
State& state();

/// The context that is current on this thread.
extern thread_local Gpu* current_gpu;

template <class T>
bool is_alive(const T* handle) {
    return handle && state().alive.count(handle) > 0;
}

/// Tells what was wrong with a call.
Status misuse(Status status, const std::string& message);
/// Tells what was wrong with an operation; nothing works on that device any more.
Status fail(Gpu& gpu, Status status, const std::string& message);
std::string describe(const Operation& operation);
uint64_t next_random();

Status initialise();
/// Whether the card is one of NVIDIA's.
bool is_nvidia();
/// Of a block, static and dynamic.
size_t max_shared_bytes();
Status current(Gpu*& gpu);
Status check_stream(Stream* stream);
/// Whether a call that no capture may meet is allowed now; a capture that it meets is spoilt.
Status check_uncaptured(const char* call);

Status allocate(size_t bytes, void** to);
Status release(void* address);
Status memory_info(size_t* free, size_t* total);
Status allocate_pinned(size_t bytes, void** to);
Status release_pinned(void* address);
/// Tells of buffers that nobody has freed.
void list_buffers(Gpu& gpu);

Status create_stream(Stream** to);
Status destroy_stream(Stream* stream);
Status wait_for_stream(Stream* stream);
Status query_stream(Stream* stream);
Status wait_for_device();
Status create_event(bool timing, Event** to);
Status destroy_event(Event* event);
Status record(Event* event, Stream* stream);
Status wait_on_stream(Stream* stream, Event* event);
Status wait_for_event(Event* event);
Status query_event(Event* event);
Status elapsed(Event* first, Event* second, float* milliseconds);

/// Gives the operation its place in the stream, or in the graph that is captured there.
Status issue(Stream* stream, Operation operation);
/// What was issued on the stream up to that number has run then.
void run_until(Stream& stream, uint32_t number);
void run_one(Stream& stream);
/// Lets some of what is pending run, or nothing.
void progress();
/// The host has learnt that all of this is complete.
void host_reached(const Clock& clock);

Status copy(Operation::Kind kind, void* to, const void* from, size_t bytes, Stream* stream);
/// A copy that names no stream.
Status refuse_copy(Operation::Kind kind, size_t bytes);
Status fill(void* to, uint32_t value, unsigned unit, size_t count, Stream* stream);
Status launch(Function* function, Dim3 grid, Dim3 block, size_t dynamic, Stream* stream, void** params, void** extra);
/// A buffer that was freed and that the operation is known to work with; null where there is none.
const emulator::Buffer* freed_memory_of(const Operation& operation, Gpu& gpu);
void execute(Operation& operation);
bool run_product(Device& device, const Product& product);

Status begin_capture(Stream* stream, CaptureMode mode);
Status end_capture(Stream* stream, Graph** to);
Status capture_status(Stream* stream, int* to);
Status capture_operation(Stream* stream, Operation operation);
Status capture_record(Event* event, Stream* stream);
Status capture_wait(Stream* stream, Event* event);
Status instantiate(Graph* graph, Executable** to);
Status launch_graph(Executable* executable, Stream* stream);
Status destroy_graph(Graph* graph);
Status destroy_executable(Executable* executable);

Status load_module(const void* image, Module** to);
Status unload_module(Module* module);
Status find_function(Module* module, const char* name, Function** to);
/// What a compiler of the vendor would give for a file that was compiled in; else what it would complain of.
bool compile(const std::string& text, const std::vector<std::pair<std::string, std::string>>& headers, const std::string& arch,
             std::string& image, std::string& log);

/// A copy under way from or to pinned memory. Whether nothing speaks against it.
bool is_pinned(const void* address, size_t bytes);
Status pin_in_flight(const Operation& operation);
void unpin_reached();
/// The same bytes, where the host's own protection does not matter.
char* behind(const void* address);

}  // namespace driver
