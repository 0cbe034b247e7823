// Asynchronous copies: what they bring is not there before it is waited for, and until then the place holds nothing useful.

#include <cstring>

#include "device.h"

namespace emulator {

void copy_async(void* to, const void* from, size_t bytes) {
    Device& d = *device;
    check_access(from, bytes, false);
    check_access(to, bytes, true);
    Copy copy = {to, {}, bytes, d.fibers[d.thread].copy_groups};
    std::memcpy(copy.data, from, bytes);
    std::memset(to, 0xff, bytes);
    d.fibers[d.thread].copies.push_back(copy);
}

void copy_commit() { device->fibers[device->thread].copy_groups++; }

void copy_wait(unsigned pending) {
    Device& d = *device;
    Fiber& fiber = d.fibers[d.thread];
    size_t kept = 0;
    for (const Copy& copy : fiber.copies) {
        if (copy.group + pending >= fiber.copy_groups) {
            fiber.copies[kept++] = copy;
            continue;
        }
        // Nobody may have touched the place since.
        check_access(copy.to, copy.bytes, true);
        std::memcpy(copy.to, copy.data, copy.bytes);
    }
    fiber.copies.resize(kept);
}

}  // namespace emulator
