// libcuda's names for the driver. Signatures are those of cuda.h 12.8, with handles and enumerations as what they are in C's calling
// convention.

#include <cstring>

#include "../driver/driver.h"

using namespace driver;

#define LOCKED std::lock_guard<std::mutex> guard(state().lock)
/// All but the few that work without.
#define INITIALISED \
    LOCKED;         \
    if (!state().initialised) return misuse(NOT_INITIALIZED, std::string(__func__) + " before cuInit")
using Address = uint64_t;

static void* pointer(Address address) { return reinterpret_cast<void*>(address); }
static int arch_number() { return std::atoi(state().options.arch.c_str() + 3); }

static Status find_gpu(int ordinal, Gpu*& gpu) {
    if (ordinal < 0 || size_t(ordinal) >= state().gpus.size()) return INVALID_DEVICE;
    gpu = state().gpus[size_t(ordinal)].get();
    return OK;
}

extern "C" {

int cuInit(unsigned flags) {
    LOCKED;
    if (flags != 0) return INVALID_VALUE;
    return initialise();
}

int cuDriverGetVersion(int* to) {
    *to = 12080;
    return OK;
}

int cuGetErrorName(int error, const char** to) {
    *to = status_name(error);
    return *to ? OK : INVALID_VALUE;
}

int cuGetErrorString(int error, const char** to) {
    *to = status_text(error);
    return *to ? OK : INVALID_VALUE;
}

int cuDeviceGetCount(int* to) {
    INITIALISED;
    *to = int(state().gpus.size());
    return OK;
}

int cuDeviceGet(int* to, int ordinal) {
    INITIALISED;
    Gpu* gpu;
    if (Status status = find_gpu(ordinal, gpu)) return status;
    *to = ordinal;
    return OK;
}

int cuDeviceGetName(char* to, int bytes, int ordinal) {
    INITIALISED;
    Gpu* gpu;
    if (Status status = find_gpu(ordinal, gpu)) return status;
    if (bytes <= 0) return INVALID_VALUE;
    std::strncpy(to, state().options.name.c_str(), size_t(bytes));
    to[bytes - 1] = 0;
    return OK;
}

int cuDeviceGetUuid_v2(char* to, int ordinal) {
    INITIALISED;
    std::memset(to, 0, 16);
    to[15] = char(ordinal);
    return OK;
}
int cuDeviceGetUuid(char* to, int ordinal) { return cuDeviceGetUuid_v2(to, ordinal); }

int cuDeviceTotalMem_v2(size_t* to, int ordinal) {
    INITIALISED;
    Gpu* gpu;
    if (Status status = find_gpu(ordinal, gpu)) return status;
    *to = state().options.memory_bytes;
    return OK;
}

int cuDeviceGetAttribute(int* to, int attribute, int ordinal) {
    INITIALISED;
    Gpu* gpu;
    if (Status status = find_gpu(ordinal, gpu)) return status;
    switch (attribute) {
        case 1: *to = 1024; break;                                     // MAX_THREADS_PER_BLOCK
        case 2: case 3: *to = 1024; break;                             // MAX_BLOCK_DIM_X, Y
        case 4: *to = 64; break;                                       // MAX_BLOCK_DIM_Z
        case 5: *to = 0x7fffffff; break;                               // MAX_GRID_DIM_X
        case 6: case 7: *to = 65535; break;                            // MAX_GRID_DIM_Y, Z
        case 8: *to = 48 << 10; break;                                 // MAX_SHARED_MEMORY_PER_BLOCK
        case 10: *to = emulator::warp_lanes(); break;                           // WARP_SIZE
        case 12: case 82: *to = 65536; break;                          // MAX_REGISTERS_PER_BLOCK, PER_MULTIPROCESSOR
        case 13: *to = 1980000; break;                                 // CLOCK_RATE
        case 16: *to = int(state().options.multiprocessors); break;    // MULTIPROCESSOR_COUNT
        case 18: *to = 0; break;                                       // INTEGRATED
        case 19: *to = 1; break;                                       // CAN_MAP_HOST_MEMORY
        case 20: *to = 0; break;                                       // COMPUTE_MODE
        case 31: case 41: *to = 1; break;                              // CONCURRENT_KERNELS, UNIFIED_ADDRESSING
        case 33: *to = 1 + ordinal; break;                             // PCI_BUS_ID
        case 34: case 50: *to = 0; break;                              // PCI_DEVICE_ID, PCI_DOMAIN_ID
        case 36: *to = 2619000; break;                                 // MEMORY_CLOCK_RATE
        case 37: *to = 5120; break;                                    // GLOBAL_MEMORY_BUS_WIDTH
        case 38: *to = 50 << 20; break;                                // L2_CACHE_SIZE
        case 39: *to = 2048; break;                                    // MAX_THREADS_PER_MULTIPROCESSOR
        case 40: *to = 3; break;                                       // ASYNC_ENGINE_COUNT
        case 75: *to = arch_number() / 10; break;                      // COMPUTE_CAPABILITY_MAJOR
        case 76: *to = arch_number() % 10; break;                      // COMPUTE_CAPABILITY_MINOR
        case 81: *to = 228 << 10; break;                               // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        case 97: *to = int(emulator::SHARED_BYTES); break;             // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        case 115: *to = 0; break;                                      // MEMORY_POOLS_SUPPORTED
        default: return misuse(NOT_SUPPORTED, "the emulated GPU knows no attribute " + std::to_string(attribute));
    }
    return OK;
}

int cuDevicePrimaryCtxRetain(Gpu** to, int ordinal) {
    INITIALISED;
    if (Status status = find_gpu(ordinal, *to)) return status;
    (*to)->retained++;
    return OK;
}

int cuDevicePrimaryCtxRelease_v2(int ordinal) {
    INITIALISED;
    Gpu* gpu;
    if (Status status = find_gpu(ordinal, gpu)) return status;
    if (gpu->retained == 0) return misuse(INVALID_CONTEXT, "a context is released more often than it was retained");
    if (--gpu->retained == 0) list_buffers(*gpu);
    return OK;
}
int cuDevicePrimaryCtxRelease(int ordinal) { return cuDevicePrimaryCtxRelease_v2(ordinal); }

int cuDevicePrimaryCtxGetState(int ordinal, unsigned* flags, int* active) {
    INITIALISED;
    Gpu* gpu;
    if (Status status = find_gpu(ordinal, gpu)) return status;
    *flags = 0;
    *active = gpu->retained > 0;
    return OK;
}
int cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return OK; }
int cuDevicePrimaryCtxSetFlags(int, unsigned) { return OK; }

int cuCtxSetCurrent(Gpu* gpu) {
    INITIALISED;
    if (gpu && gpu->retained == 0) return misuse(INVALID_CONTEXT, "a context that was released is made current");
    current_gpu = gpu;
    return OK;
}

int cuCtxGetCurrent(Gpu** to) {
    INITIALISED;
    *to = current_gpu;
    return OK;
}

int cuCtxGetDevice(int* to) {
    INITIALISED;
    if (!current_gpu) return INVALID_CONTEXT;
    *to = int(current_gpu->ordinal);
    return OK;
}

int cuCtxSynchronize() {
    INITIALISED;
    return wait_for_device();
}

int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return OK;
}
int cuCtxSetFlags(unsigned) { return OK; }

int cuMemAlloc_v2(Address* to, size_t bytes) {
    INITIALISED;
    void* start = nullptr;
    Status status = allocate(bytes, &start);
    *to = reinterpret_cast<Address>(start);
    return status;
}

int cuMemFree_v2(Address address) {
    INITIALISED;
    return release(pointer(address));
}

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    INITIALISED;
    return memory_info(free, total);
}

int cuMemHostAlloc(void** to, size_t bytes, unsigned) {
    INITIALISED;
    return allocate_pinned(bytes, to);
}
int cuMemAllocHost_v2(void** to, size_t bytes) { return cuMemHostAlloc(to, bytes, 0); }

int cuMemFreeHost(void* address) {
    INITIALISED;
    return release_pinned(address);
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream* stream) {
    INITIALISED;
    return copy(Operation::TO_DEVICE, pointer(to), from, bytes, stream);
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream* stream) {
    INITIALISED;
    return copy(Operation::TO_HOST, to, pointer(from), bytes, stream);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream* stream) {
    INITIALISED;
    return copy(Operation::ON_DEVICE, pointer(to), pointer(from), bytes, stream);
}
int cuMemcpyHtoD_v2(Address, const void*, size_t bytes) {
    INITIALISED;
    return refuse_copy(Operation::TO_DEVICE, bytes);
}
int cuMemcpyDtoH_v2(void*, Address, size_t bytes) {
    INITIALISED;
    return refuse_copy(Operation::TO_HOST, bytes);
}
int cuMemcpyDtoD_v2(Address, Address, size_t bytes) {
    INITIALISED;
    return refuse_copy(Operation::ON_DEVICE, bytes);
}
int cuMemsetD8Async(Address to, unsigned char value, size_t count, Stream* stream) {
    INITIALISED;
    return fill(pointer(to), value, 1, count, stream);
}
int cuMemsetD16Async(Address to, unsigned short value, size_t count, Stream* stream) {
    INITIALISED;
    return fill(pointer(to), value, 2, count, stream);
}
int cuMemsetD32Async(Address to, unsigned value, size_t count, Stream* stream) {
    INITIALISED;
    return fill(pointer(to), value, 4, count, stream);
}

int cuStreamCreate(Stream** to, unsigned flags) {
    INITIALISED;
    if (flags > 1) return INVALID_VALUE;
    return create_stream(to);
}
int cuStreamCreateWithPriority(Stream** to, unsigned flags, int) { return cuStreamCreate(to, flags); }
int cuStreamDestroy_v2(Stream* stream) {
    INITIALISED;
    return destroy_stream(stream);
}
int cuStreamSynchronize(Stream* stream) {
    INITIALISED;
    return wait_for_stream(stream);
}
int cuStreamQuery(Stream* stream) {
    INITIALISED;
    return query_stream(stream);
}
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    INITIALISED;
    return wait_on_stream(stream, event);
}
int cuStreamBeginCapture_v2(Stream* stream, int mode) {
    INITIALISED;
    if (mode < GLOBAL || mode > RELAXED) return INVALID_VALUE;
    return begin_capture(stream, CaptureMode(mode));
}
int cuStreamEndCapture(Stream* stream, Graph** to) {
    INITIALISED;
    return end_capture(stream, to);
}
int cuStreamIsCapturing(Stream* stream, int* to) {
    INITIALISED;
    return capture_status(stream, to);
}

int cuEventCreate(Event** to, unsigned flags) {
    INITIALISED;
    return create_event((flags & 2) == 0, to);
}
int cuEventDestroy_v2(Event* event) {
    INITIALISED;
    return destroy_event(event);
}
int cuEventRecord(Event* event, Stream* stream) {
    INITIALISED;
    return record(event, stream);
}
int cuEventSynchronize(Event* event) {
    INITIALISED;
    return wait_for_event(event);
}
int cuEventQuery(Event* event) {
    INITIALISED;
    return query_event(event);
}
int cuEventElapsedTime(float* to, Event* first, Event* second) {
    INITIALISED;
    return elapsed(first, second, to);
}
int cuEventElapsedTime_v2(float* to, Event* first, Event* second) { return cuEventElapsedTime(to, first, second); }

int cuGraphInstantiateWithFlags(Executable** to, Graph* graph, unsigned long long) {
    INITIALISED;
    return instantiate(graph, to);
}
int cuGraphUpload(Executable* executable, Stream* stream) {
    INITIALISED;
    if (!is_alive(executable)) return misuse(INVALID_HANDLE, "a graph that was destroyed or never made");
    return check_stream(stream);
}
int cuGraphLaunch(Executable* executable, Stream* stream) {
    INITIALISED;
    return launch_graph(executable, stream);
}
int cuGraphGetNodes(Graph* graph, void** nodes, size_t* count) {
    INITIALISED;
    if (!is_alive(graph)) return misuse(INVALID_HANDLE, "a graph that was destroyed or never made");
    size_t all = 0;
    for (const Operation& operation : graph->operations) {
        if (operation.kind == Operation::RECORD || operation.kind == Operation::WAIT) continue;
        if (nodes && all < *count) nodes[all] = const_cast<Operation*>(&operation);
        all++;
    }
    if (!nodes || *count > all) *count = all;
    return OK;
}
int cuGraphDestroy(Graph* graph) {
    INITIALISED;
    return destroy_graph(graph);
}
int cuGraphExecDestroy(Executable* executable) {
    INITIALISED;
    return destroy_executable(executable);
}

int cuModuleLoadData(Module** to, const void* image) {
    INITIALISED;
    return load_module(image, to);
}
int cuModuleLoadDataEx(Module** to, const void* image, unsigned, void*, void*) { return cuModuleLoadData(to, image); }
int cuModuleUnload(Module* module) {
    INITIALISED;
    return unload_module(module);
}
int cuModuleGetFunction(Function** to, Module* module, const char* name) {
    INITIALISED;
    return find_function(module, name, to);
}

int cuFuncSetAttribute(Function* function, int attribute, int value) {
    INITIALISED;
    if (!is_alive(function)) return misuse(INVALID_HANDLE, "a function that was never found");
    if (attribute == 9) return OK;  // PREFERRED_SHARED_MEMORY_CARVEOUT
    if (attribute != 8) return misuse(NOT_SUPPORTED, "the emulated GPU cannot set attribute " + std::to_string(attribute) + " of a function");
    if (value < 0 || size_t(value) > emulator::SHARED_BYTES) {
        return misuse(INVALID_VALUE, std::to_string(value) + " bytes of dynamic shared memory for " + function->kernel->name + ", where a block has at most " +
                                         std::to_string(emulator::SHARED_BYTES));
    }
    function->max_dynamic = size_t(value);
    return OK;
}

int cuFuncGetAttribute(int* to, int attribute, Function* function) {
    INITIALISED;
    if (!is_alive(function)) return misuse(INVALID_HANDLE, "a function that was never found");
    switch (attribute) {
        case 0: *to = int(function->kernel->max_threads); break;
        case 1: case 2: case 3: *to = 0; break;
        case 4: *to = 64; break;
        case 5: case 6: *to = arch_number(); break;
        case 8: *to = int(function->max_dynamic); break;
        default: return misuse(NOT_SUPPORTED, "the emulated GPU knows no attribute " + std::to_string(attribute) + " of a function");
    }
    return OK;
}

int cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* bytes) {
    INITIALISED;
    if (!is_alive(function)) return misuse(INVALID_HANDLE, "a function that was never found");
    if (index > 0) return INVALID_VALUE;
    *offset = 0;
    if (bytes) *bytes = function->kernel->args_bytes;
    return OK;
}
int cuFuncLoad(Function*) { return OK; }

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* to, Function*, int threads, size_t dynamic) {
    size_t by_memory = (228 << 10) / (dynamic + 1024);
    *to = int(std::min<size_t>(by_memory, threads > 0 ? size_t(2048 / threads) : 0));
    return OK;
}

int cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned dynamic, Stream* stream, void** params, void** extra) {
    INITIALISED;
    return launch(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic, stream, params, extra);
}
}
