// libamdhip64's names for the driver, as ROCm 6 and 7 have them. Its results are CUDA's by number.

#include <cctype>
#include <cstring>
#include <map>

#include "../driver/driver.h"

using namespace driver;

/// AMD's runtime starts with the first call, and every thread begins with the first card.
#define READY                                                  \
    std::lock_guard<std::mutex> guard(state().lock);           \
    if (Status status = initialise()) return status;           \
    if (!current_gpu) current_gpu = state().gpus[0].get()

namespace {

/// `hipDeviceProp_tR0600`, of which little is filled in.
struct Properties {
    char name[256];
    char ids[32];
    size_t total_global_memory, shared_memory_per_block;
    int registers_per_block, warp_size;
    size_t pitch;
    int max_threads_per_block, max_threads_dim[3], max_grid_size[3], clock_rate;
    size_t constant_memory;
    int major, minor;
    size_t alignments[2];
    int device_overlap, multiprocessors;
    char more[768];
    char arch[256];
    char rest[56];
};
static_assert(offsetof(Properties, total_global_memory) == 288 && offsetof(Properties, warp_size) == 308 && offsetof(Properties, multiprocessors) == 388 &&
                  offsetof(Properties, arch) == 1160 && sizeof(Properties) == 1472,
              "as hip_runtime_api.h of ROCm 6 has it");

/// "CUDA_ERROR_OUT_OF_MEMORY" as "hipErrorOutOfMemory".
const char* name_of(int status) {
    static std::map<int, std::string> names;
    const char* name = status_name(status);
    if (!name) return "hipErrorUnknown";
    std::string& own = names[status];
    if (own.empty()) {
        own = status == OK ? "hipSuccess" : "hipError";
        for (const char* c = status == OK ? "" : name + std::strlen("CUDA_ERROR"); *c; c++) {
            if (*c != '_') own += c[-1] == '_' ? *c : char(std::tolower(*c));
        }
    }
    return own.c_str();
}

}  // namespace

extern "C" {

int hipInit(unsigned flags) {
    if (flags != 0) return INVALID_VALUE;
    READY;
    return OK;
}

int hipDriverGetVersion(int* to) {
    *to = 60000000;
    return OK;
}
int hipRuntimeGetVersion(int* to) { return hipDriverGetVersion(to); }

const char* hipGetErrorName(int status) {
    std::lock_guard<std::mutex> guard(state().lock);
    return name_of(status);
}
const char* hipGetErrorString(int status) {
    const char* text = status_text(status);
    return text ? text : "unknown error";
}

int hipGetDeviceCount(int* to) {
    READY;
    *to = int(state().gpus.size());
    return OK;
}

int hipSetDevice(int ordinal) {
    READY;
    if (ordinal < 0 || size_t(ordinal) >= state().gpus.size()) return INVALID_DEVICE;
    current_gpu = state().gpus[size_t(ordinal)].get();
    return OK;
}

int hipGetDevice(int* to) {
    READY;
    *to = int(current_gpu->ordinal);
    return OK;
}

int hipGetDevicePropertiesR0600(Properties* to, int ordinal) {
    READY;
    if (ordinal < 0 || size_t(ordinal) >= state().gpus.size()) return INVALID_DEVICE;
    const Options& options = state().options;
    *to = {};
    std::strncpy(to->name, options.name.c_str(), sizeof to->name - 1);
    std::strncpy(to->arch, options.arch.c_str(), sizeof to->arch - 1);
    to->total_global_memory = options.memory_bytes;
    to->shared_memory_per_block = max_shared_bytes();
    to->registers_per_block = 65536;
    to->warp_size = emulator::warp_lanes();
    to->max_threads_per_block = 1024;
    to->multiprocessors = int(options.multiprocessors);
    return OK;
}

int hipMemGetInfo(size_t* free, size_t* total) {
    READY;
    return memory_info(free, total);
}

int hipMalloc(void** to, size_t bytes) {
    READY;
    return allocate(bytes, to);
}
int hipFree(void* address) {
    READY;
    return release(address);
}
int hipHostMalloc(void** to, size_t bytes, unsigned) {
    READY;
    return allocate_pinned(bytes, to);
}
int hipHostFree(void* address) {
    READY;
    return release_pinned(address);
}

int hipMemcpyAsync(void* to, const void* from, size_t bytes, int kind, Stream* stream) {
    READY;
    switch (kind) {
        case 1: return copy(Operation::TO_DEVICE, to, from, bytes, stream);
        case 2: return copy(Operation::TO_HOST, to, from, bytes, stream);
        case 3: return copy(Operation::ON_DEVICE, to, from, bytes, stream);
        default: return misuse(INVALID_VALUE, "a copy of kind " + std::to_string(kind));
    }
}
int hipMemsetAsync(void* to, int value, size_t bytes, Stream* stream) {
    READY;
    return fill(to, uint8_t(value), 1, bytes, stream);
}

int hipStreamCreateWithFlags(Stream** to, unsigned flags) {
    READY;
    if (flags > 1) return INVALID_VALUE;
    return create_stream(to);
}
int hipStreamDestroy(Stream* stream) {
    READY;
    return destroy_stream(stream);
}
int hipStreamSynchronize(Stream* stream) {
    READY;
    return wait_for_stream(stream);
}
int hipStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    READY;
    return wait_on_stream(stream, event);
}
int hipStreamBeginCapture(Stream* stream, int mode) {
    READY;
    if (mode < GLOBAL || mode > RELAXED) return INVALID_VALUE;
    return begin_capture(stream, CaptureMode(mode));
}
int hipStreamEndCapture(Stream* stream, Graph** to) {
    READY;
    return end_capture(stream, to);
}
int hipDeviceSynchronize() {
    READY;
    return wait_for_device();
}

int hipEventCreateWithFlags(Event** to, unsigned flags) {
    READY;
    return create_event((flags & 2) == 0, to);
}
int hipEventDestroy(Event* event) {
    READY;
    return destroy_event(event);
}
int hipEventRecord(Event* event, Stream* stream) {
    READY;
    return record(event, stream);
}
int hipEventSynchronize(Event* event) {
    READY;
    return wait_for_event(event);
}
int hipEventQuery(Event* event) {
    READY;
    return query_event(event);
}
int hipEventElapsedTime(float* to, Event* first, Event* second) {
    READY;
    return elapsed(first, second, to);
}

int hipGraphInstantiateWithFlags(Executable** to, Graph* graph, unsigned long long) {
    READY;
    return instantiate(graph, to);
}
int hipGraphLaunch(Executable* executable, Stream* stream) {
    READY;
    return launch_graph(executable, stream);
}
int hipGraphDestroy(Graph* graph) {
    READY;
    return destroy_graph(graph);
}
int hipGraphExecDestroy(Executable* executable) {
    READY;
    return destroy_executable(executable);
}

int hipModuleLoadData(Module** to, const void* image) {
    READY;
    return load_module(image, to);
}
int hipModuleUnload(Module* module) {
    READY;
    return unload_module(module);
}
int hipModuleGetFunction(Function** to, Module* module, const char* name) {
    READY;
    return find_function(module, name, to);
}
int hipModuleLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned dynamic, Stream* stream, void** params, void** extra) {
    READY;
    return launch(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic, stream, params, extra);
}
}
