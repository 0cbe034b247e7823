// What the tests call: devices, their memory, and launches by name.

#include <cstring>
#include <sstream>

#include "device.h"

namespace emulator {

static std::vector<Registered>& registry() {
    static std::vector<Registered> all;
    return all;
}

unsigned warp_lanes() { return EMULATED_WARP; }

const std::vector<Registered>& kernels() { return registry(); }

const Registered* find_kernel(const char* name) {
    for (const Registered& kernel : registry()) {
        if (std::strcmp(kernel.name, name) == 0) return &kernel;
    }
    return nullptr;
}

Kernel::Kernel(const char* name, size_t args_bytes, unsigned threads, void (*body)(const void* args), const char* file) {
    std::string path = file;
    registry().push_back({name, path.substr(path.find_last_of('/') + 1), args_bytes, threads, body});
}

/// Made by whoever compiles all this: "file hash file hash ...".
extern const char* const SOURCES;

const std::vector<Source>& sources() {
    static const std::vector<Source> all = [] {
        std::vector<Source> list;
        std::istringstream text(SOURCES);
        Source source;
        while (text >> source.file >> source.hash) list.push_back(source);
        return list;
    }();
    return all;
}

}  // namespace emulator

using namespace emulator;

extern "C" {

unsigned emulator_warp() { return EMULATED_WARP; }

Device* emulator_create() {
    Device* device = new Device(size_t(4) << 30);
    if (device->usable()) return device;
    delete device;
    return nullptr;
}

void emulator_destroy(Device* device) { delete device; }

void* emulator_allocate(Device* device, size_t bytes) { return device->allocate(bytes); }

/// Empty when all went well; else what went wrong, until the next launch.
const char* emulator_launch(Device* device, const char* name, const unsigned grid[3], const unsigned block[3], size_t dynamic_shared,
                            const void* args, size_t args_bytes, uint64_t seed) {
    const Registered* kernel = find_kernel(name);
    device->error.clear();
    if (!kernel) {
        device->error = std::string("no kernel is called ") + name;
    } else if (kernel->args_bytes != args_bytes) {
        device->error = std::string(name) + " takes arguments of " + std::to_string(kernel->args_bytes) + " bytes, not " + std::to_string(args_bytes);
    } else if (block[0] * block[1] * block[2] > kernel->max_threads) {
        device->error = std::string(name) + " takes blocks of up to " + std::to_string(kernel->max_threads) + " threads";
    } else {
        device->begin_operation(0, device->number + 1, Clock(), kernel->name);
        if (!device->run({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, dynamic_shared, kernel->body, args, seed)) {
            device->error = std::string(name) + ": " + device->error;
        }
    }
    return device->error.c_str();
}
}
