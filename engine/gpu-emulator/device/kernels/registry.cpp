// The kernels that were compiled in, and their sources.

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
