// Copies, fills and launches: what is checked when they are issued, and what they do when they run.

#include <cstring>

#include "driver.h"

namespace driver {

std::string describe(const Operation& operation) {
    std::string text = operation.name;
    if (operation.bytes > 0) text += " of " + std::to_string(operation.bytes) + " bytes";
    if (!operation.stream) return text;
    return text + " (operation " + std::to_string(operation.number) + " of stream " + std::to_string(operation.stream->id) + ")";
}

static const char* copy_name(Operation::Kind kind) {
    return kind == Operation::TO_DEVICE ? "copy to the device" : kind == Operation::TO_HOST ? "copy to the host" : "copy on the device";
}

Status copy(Operation::Kind kind, void* to, const void* from, size_t bytes, Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    state().counters.copies++;
    if (bytes == 0) return OK;
    Operation operation;
    operation.kind = kind;
    operation.name = copy_name(kind);
    operation.to = static_cast<char*>(to);
    operation.from = static_cast<const char*>(from);
    operation.bytes = bytes;
    Device& device = stream->gpu->device;
    if ((kind != Operation::TO_HOST) != device.holds(to) || (kind != Operation::TO_DEVICE) != device.holds(from)) {
        return misuse(INVALID_VALUE, describe(operation) + ": an address is not of this device, or not of the host");
    }
    const void* host = kind == Operation::TO_DEVICE ? from : to;
    if (kind == Operation::ON_DEVICE || is_pinned(host, bytes)) return issue(stream, std::move(operation));
    if (is_pinned(host, 1)) return misuse(INVALID_VALUE, describe(operation) + ": beyond the end of pinned memory");
    if (stream->capture) {
        stream->capture->invalid = "a copy between the device and memory that is not pinned";
        return misuse(CAPTURE_UNSUPPORTED, describe(operation) + ": memory that is not pinned cannot be part of a graph");
    }
    // A driver stages what it reads before it returns, and waits for what it writes.
    if (kind == Operation::TO_DEVICE) {
        operation.staged.assign(operation.from, operation.from + bytes);
        operation.from = nullptr;
        return issue(stream, std::move(operation));
    }
    Status status = issue(stream, std::move(operation));
    run_until(*stream, stream->issued);
    return status ? status : stream->gpu->sticky;
}

Status refuse_copy(Operation::Kind kind, size_t bytes) {
    return misuse(NOT_SUPPORTED, std::string(copy_name(kind)) + " of " + std::to_string(bytes) + " bytes on the default stream: every operation must name its stream");
}

Status fill(void* to, uint32_t value, unsigned unit, size_t count, Stream* stream) {
    if (Status status = check_stream(stream)) return status;
    state().counters.fills++;
    if (count == 0) return OK;
    Operation operation;
    operation.kind = Operation::FILL;
    operation.name = "fill";
    operation.to = static_cast<char*>(to);
    operation.bytes = count * unit;
    operation.value = value;
    operation.unit = unit;
    if (!stream->gpu->device.holds(to)) return misuse(INVALID_VALUE, describe(operation) + ": not an address of this device");
    if (reinterpret_cast<size_t>(to) % unit != 0) return misuse(INVALID_VALUE, describe(operation) + ": a misaligned address");
    return issue(stream, std::move(operation));
}

Status launch(Function* function, Dim3 grid, Dim3 block, size_t dynamic, Stream* stream, void** params, void** extra) {
    if (Status status = check_stream(stream)) return status;
    if (!is_alive(function) || !is_alive(function->module)) return misuse(INVALID_HANDLE, "a launch of a function of no module that is loaded");
    const emulator::Registered& kernel = *function->kernel;
    auto refuse = [&](Status status, const std::string& reason) { return misuse(status, std::string("launch of ") + kernel.name + ": " + reason); };
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return refuse(INVALID_VALUE, "a grid without blocks");
    if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return refuse(INVALID_VALUE, "a grid of more than 2^31 - 1 blocks in x or 65535 in y or z");
    if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64) {
        return refuse(INVALID_VALUE, "a block of " + std::to_string(threads) + " threads");
    }
    if (threads > kernel.max_threads) {
        return refuse(LAUNCH_OUT_OF_RESOURCES, "a block of " + std::to_string(threads) + " threads, where the kernel is made for " + std::to_string(kernel.max_threads));
    }
    if (threads % emulator::warp_lanes() != 0) return refuse(INVALID_VALUE, "a block of " + std::to_string(threads) + " threads, which are no whole warps");
    if (dynamic > function->max_dynamic) {
        return refuse(INVALID_VALUE, std::to_string(dynamic) + " bytes of dynamic shared memory, where " + std::to_string(function->max_dynamic) + " are allowed");
    }
    Operation operation;
    operation.kind = Operation::LAUNCH;
    operation.name = kernel.name;
    operation.kernel = &kernel;
    operation.grid = grid;
    operation.block = block;
    operation.dynamic = dynamic;
    const char* args = nullptr;
    size_t bytes = kernel.args_bytes;
    if (extra) {
        // CUDA's list ends with 0, HIP's with 3.
        for (void** item = extra; *item && *item != reinterpret_cast<void*>(3); item += 2) {
            if (*item == reinterpret_cast<void*>(1)) args = static_cast<const char*>(item[1]);
            if (*item == reinterpret_cast<void*>(2)) bytes = *static_cast<const size_t*>(item[1]);
        }
    } else if (params) {
        args = static_cast<const char*>(params[0]);
    }
    if (!args) return refuse(INVALID_VALUE, "no arguments");
    if (bytes != kernel.args_bytes) {
        return refuse(INVALID_VALUE, "arguments of " + std::to_string(bytes) + " bytes, where the kernel takes " + std::to_string(kernel.args_bytes));
    }
    operation.args.assign(args, args + bytes);
    state().counters.launches++;
    return issue(stream, std::move(operation));
}

static void run_fill(const Operation& operation) {
    if (operation.unit == 1) {
        std::memset(operation.to, int(operation.value), operation.bytes);
        return;
    }
    for (size_t i = 0; i < operation.bytes; i += operation.unit) std::memcpy(operation.to + i, &operation.value, operation.unit);
}

void execute(Operation& operation) {
    Gpu& gpu = *operation.stream->gpu;
    Device& device = gpu.device;
    device.error.clear();
    device.begin_operation(operation.stream->id, operation.number, operation.clock, operation.name);
    Status status = ILLEGAL_ADDRESS;
    switch (operation.kind) {
        case Operation::TO_DEVICE:
            if (!device.touch(operation.to, operation.bytes, true)) break;
            std::memcpy(operation.to, operation.staged.empty() ? behind(operation.from) : operation.staged.data(), operation.bytes);
            break;
        case Operation::TO_HOST:
            if (!device.touch(operation.from, operation.bytes, false)) break;
            std::memcpy(behind(operation.to), operation.from, operation.bytes);
            break;
        case Operation::ON_DEVICE:
            if (operation.to < operation.from + operation.bytes && operation.from < operation.to + operation.bytes) {
                device.error = "the copy's source and destination overlap";
                break;
            }
            if (!device.touch(operation.from, operation.bytes, false) || !device.touch(operation.to, operation.bytes, true)) break;
            std::memcpy(operation.to, operation.from, operation.bytes);
            break;
        case Operation::FILL:
            if (device.touch(operation.to, operation.bytes, true)) run_fill(operation);
            break;
        case Operation::LAUNCH:
            device.run(operation.grid, operation.block, operation.dynamic, operation.kernel->body, operation.args.data(), next_random());
            break;
        case Operation::PRODUCT:
            run_product(device, *operation.product);
            break;
        case Operation::RECORD:
        case Operation::WAIT:
            break;
    }
    if (!device.error.empty()) fail(gpu, status, describe(operation) + ": " + device.error);
}

}  // namespace driver
