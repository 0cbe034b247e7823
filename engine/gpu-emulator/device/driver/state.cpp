// Options, errors and counters.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace driver {

thread_local Gpu* current_gpu;

State& state() {
    // Never destroyed: threads may call until the process ends.
    static State* one = new State;
    return *one;
}

/// "seed=1;memory=1000000;arch=sm_80": only what is named changes.
static bool configure(Options& options, const std::string& text) {
    size_t start = 0;
    while (start < text.size()) {
        size_t end = std::min(text.find(';', start), text.size()), equals = text.find('=', start);
        if (equals >= end) return false;
        std::string key = text.substr(start, equals - start), value = text.substr(equals + 1, end - equals - 1);
        uint64_t number = std::strtoull(value.c_str(), nullptr, 10);
        if (key == "seed") options.seed = number;
        else if (key == "memory") options.memory_bytes = number;
        else if (key == "devices") options.devices = unsigned(number);
        else if (key == "multiprocessors") options.multiprocessors = unsigned(number);
        else if (key == "arch") options.arch = value;
        else if (key == "name") options.name = value;
        else if (key == "progress" && value == "eager") options.progress = EAGER;
        else if (key == "progress" && value == "lazy") options.progress = LAZY;
        else if (key == "progress" && value == "mixed") options.progress = MIXED;
        else return false;
        start = end + 1;
    }
    return true;
}

State::State() {
    if (emulator::warp_lanes() == 64) options.arch = "gfx942";
    const char* text = std::getenv("TOKENFLOW_EMULATED_GPU");
    if (text && !configure(options, text)) std::fprintf(stderr, "emulated GPU: TOKENFLOW_EMULATED_GPU=%s is not understood\n", text);
    random = options.seed;
}

/// splitmix64
uint64_t next_random() {
    uint64_t x = state().random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

Status misuse(Status status, const std::string& message) {
    State& s = state();
    s.counters.errors++;
    s.last_error = message;
    std::fprintf(stderr, "emulated GPU: %s\n", message.c_str());
    return status;
}

Status fail(Gpu& gpu, Status status, const std::string& message) {
    if (gpu.sticky == OK) {
        gpu.sticky = status;
        misuse(status, message);
    }
    return gpu.sticky;
}

bool is_nvidia() { return state().options.arch.rfind("sm_", 0) == 0; }

size_t max_shared_bytes() { return is_nvidia() ? emulator::SHARED_BYTES : 64 << 10; }

Status initialise() {
    State& s = state();
    if (s.initialised) return OK;
    s.initialised = true;
    for (unsigned i = 0; i < s.options.devices; i++) {
        auto gpu = std::make_unique<Gpu>(i);
        if (!gpu->device.usable()) return misuse(OUT_OF_MEMORY, "no address space for an emulated device");
        s.gpus.push_back(std::move(gpu));
    }
    return s.gpus.empty() ? NO_DEVICE : OK;
}

Status current(Gpu*& gpu) {
    if (!current_gpu) return misuse(INVALID_CONTEXT, "no context is current on this thread");
    gpu = current_gpu;
    return gpu->sticky;
}

}  // namespace driver

using namespace driver;

extern "C" {

/// Before the first call of a driver's function. Whether the text was understood.
int emulator_configure(const char* text) {
    std::lock_guard<std::mutex> guard(state().lock);
    bool understood = configure(state().options, text);
    state().random = state().options.seed;
    return understood;
}

/// How much of the memory may be used from now on.
void emulator_limit_memory(size_t bytes) {
    std::lock_guard<std::mutex> guard(state().lock);
    state().options.memory_bytes = bytes;
}

size_t emulator_counters(uint64_t* to, size_t count) {
    std::lock_guard<std::mutex> guard(state().lock);
    size_t all = sizeof(Counters) / sizeof(uint64_t);
    std::memcpy(to, &state().counters, std::min(count, all) * sizeof(uint64_t));
    return all;
}

void emulator_reset_counters() {
    std::lock_guard<std::mutex> guard(state().lock);
    Counters& all = state().counters;
    uint64_t bytes = all.bytes_in_use;
    all = {};
    all.bytes_in_use = all.peak_bytes = bytes;
}

/// The latest error's message, cut to fit; its length.
size_t emulator_last_error(char* to, size_t bytes) {
    std::lock_guard<std::mutex> guard(state().lock);
    const std::string& text = state().last_error;
    std::memcpy(to, text.data(), std::min(bytes, text.size()));
    return text.size();
}
}
