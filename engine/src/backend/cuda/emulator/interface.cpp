// What the tests call: devices, their memory, and launches by name.

#include <cstring>

#include "device.h"

namespace emulator {

struct Registered {
    const char* name;
    size_t args_bytes;
    void (*body)(const void*);
};

static std::vector<Registered>& registry() {
    static std::vector<Registered> all;
    return all;
}

Kernel::Kernel(const char* name, size_t args_bytes, void (*body)(const void*)) { registry().push_back({name, args_bytes, body}); }

}  // namespace emulator

using namespace emulator;

extern "C" {

unsigned emulator_warp() { return EMULATED_WARP; }

Device* emulator_create() {
    Device* device = new Device;
    if (device->arena && device->shadow) return device;
    delete device;
    return nullptr;
}

void emulator_destroy(Device* device) { delete device; }

void* emulator_allocate(Device* device, size_t bytes) { return device->allocate(bytes); }

/// Empty when all went well; else what went wrong, until the next launch.
const char* emulator_launch(Device* device, const char* name, const unsigned grid[3], const unsigned block[3], size_t dynamic_shared,
                            const void* args, size_t args_bytes, uint64_t seed) {
    for (const Registered& kernel : registry()) {
        if (std::strcmp(kernel.name, name) != 0) continue;
        if (kernel.args_bytes != args_bytes) {
            device->error = std::string(name) + " takes arguments of " + std::to_string(kernel.args_bytes) + " bytes, not " + std::to_string(args_bytes);
            return device->error.c_str();
        }
        if (!device->run({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, dynamic_shared, kernel.body, args, seed)) {
            device->error = std::string(name) + ": " + device->error;
        }
        return device->error.c_str();
    }
    device->error = std::string("no kernel is called ") + name;
    return device->error.c_str();
}
}
