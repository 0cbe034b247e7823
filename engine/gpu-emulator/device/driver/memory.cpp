// Memory of the device: what is allocated, and what is still at work with what is freed.

#include <cstdio>
#include <cstring>

#include "driver.h"

namespace driver {

Status allocate(size_t bytes, void** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (Status status = check_uncaptured("an allocation")) return status;
    if (bytes == 0) return misuse(INVALID_VALUE, "an allocation of no bytes");
    State& s = state();
    s.counters.allocations++;
    size_t limit = s.options.memory_bytes;
    if (gpu->bytes_in_use > limit || bytes > limit - gpu->bytes_in_use) return OUT_OF_MEMORY;
    void* start = gpu->device.allocate(bytes);
    if (!start) return misuse(OUT_OF_MEMORY, "the emulated device has no addresses left");
    gpu->bytes_in_use += bytes;
    s.counters.bytes_in_use += bytes;
    s.counters.peak_bytes = std::max(s.counters.peak_bytes, s.counters.bytes_in_use);
    *to = start;
    return OK;
}

/// Where the operation is known to work: what a kernel is given is searched for addresses.
static std::vector<const char*> addresses(const Operation& operation) {
    std::vector<const char*> all = {operation.to, operation.from};
    for (size_t i = 0; i + sizeof(char*) <= operation.args.size(); i += sizeof(char*)) {
        const char* address;
        std::memcpy(&address, operation.args.data() + i, sizeof address);
        all.push_back(address);
    }
    if (const Product* product = operation.product.get()) all.insert(all.end(), {product->a, product->b, product->c, product->d, product->workspace});
    return all;
}

static bool works_with(const Operation& operation, Gpu& gpu, const emulator::Buffer& buffer) {
    for (const char* address : addresses(operation)) {
        if (gpu.device.buffer_at(address) == &buffer) return true;
    }
    return false;
}

const emulator::Buffer* freed_memory_of(const Operation& operation, Gpu& gpu) {
    for (const char* address : addresses(operation)) {
        const emulator::Buffer* buffer = gpu.device.buffer_at(address);
        if (buffer && buffer->freed) return buffer;
    }
    return nullptr;
}

Status release(void* address) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (Status status = check_uncaptured("a free")) return status;
    if (!address) return OK;
    State& s = state();
    emulator::Buffer* buffer = gpu->device.buffer_at(address);
    if (!buffer) return misuse(INVALID_VALUE, "a free of what was never allocated");
    size_t offset = size_t(static_cast<char*>(address) - gpu->device.arena);
    if (buffer->freed) return misuse(INVALID_VALUE, "freed twice: " + gpu->device.place(offset));
    if (offset != buffer->start) return misuse(INVALID_VALUE, "a free of an address that is not a buffer's first: " + gpu->device.place(offset));
    s.counters.frees++;
    for (Stream* stream : gpu->streams) {
        for (const Operation& operation : stream->pending) {
            if (!works_with(operation, *gpu, *buffer)) continue;
            return fail(*gpu, ILLEGAL_ADDRESS, "freed while " + describe(operation) + " has yet to work with it: " + gpu->device.place(offset));
        }
        uint32_t last = buffer->users.get(stream->id);
        if (last > s.host.get(stream->id)) {
            return fail(*gpu, ILLEGAL_ADDRESS, "freed while operation " + std::to_string(last) + " of stream " + std::to_string(stream->id) +
                                                  ", for which nobody has waited, works with it: " + gpu->device.place(offset));
        }
    }
    gpu->bytes_in_use -= buffer->bytes;
    s.counters.bytes_in_use -= buffer->bytes;
    gpu->device.release(*buffer);
    return OK;
}

Status memory_info(size_t* free, size_t* total) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    *total = state().options.memory_bytes;
    *free = *total > gpu->bytes_in_use ? *total - gpu->bytes_in_use : 0;
    return OK;
}

void list_buffers(Gpu& gpu) {
    size_t number = 0;
    for (const emulator::Buffer& buffer : gpu.device.buffers) {
        number++;
        if (buffer.freed) continue;
        misuse(INVALID_VALUE, "still allocated when the context is destroyed: buffer " + std::to_string(number) + " of " +
                                  std::to_string(buffer.bytes) + " bytes");
    }
}

}  // namespace driver
