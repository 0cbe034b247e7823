// Modules. The kernels were compiled together with the emulator; what a compiler of the vendor would make of their text is an image that
// names them, and is made only where the text is what was compiled.

#include <cstring>
#include <sstream>

#include "driver.h"

namespace driver {

static const char MAGIC[] = "emulated GPU image\n";

static uint64_t hash_of(const std::string& text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (char c : text) hash = (hash ^ uint8_t(c)) * 0x100000001b3u;
    return hash;
}

static const emulator::Source* find_source(const std::string& text) {
    uint64_t hash = hash_of(text);
    for (const emulator::Source& source : emulator::sources()) {
        if (source.hash == hash) return &source;
    }
    return nullptr;
}

using Header = std::pair<std::string, std::string>;

static bool check_includes(const std::string& file, const std::string& text, const std::vector<Header>& headers, std::set<std::string>& seen,
                           std::string& log) {
    std::istringstream lines(text);
    std::string line;
    for (int number = 1; std::getline(lines, line); number++) {
        if (line.rfind("#include \"", 0) != 0) continue;
        std::string name = line.substr(10, line.find('"', 10) - 10);
        if (name == "emulator.h" || !seen.insert(name).second) continue;
        const Header* header = nullptr;
        for (const Header& one : headers) header = one.first == name ? &one : header;
        if (!header) {
            log = file + "(" + std::to_string(number) + "): catastrophic error: cannot open source file \"" + name + "\"\n";
            return false;
        }
        if (!find_source(header->second)) {
            log = "the emulated GPU was built with another text of " + name + "\n";
            return false;
        }
        if (!check_includes(name, header->second, headers, seen, log)) return false;
    }
    return true;
}

bool compile(const std::string& text, const std::vector<Header>& headers, const std::string& arch, std::string& image, std::string& log) {
    state().counters.compilations++;
    const emulator::Source* source = find_source(text);
    if (!source) {
        log = "the emulated GPU has no kernels of this text compiled in\n";
        return false;
    }
    std::set<std::string> seen;
    if (!check_includes(source->file, text, headers, seen, log)) return false;
    std::ostringstream out;
    out << MAGIC << source->file << "\n" << source->hash << "\n" << (arch.empty() ? "sm_52" : arch) << "\n";
    image = out.str();
    return true;
}

/// "sm_90a", "compute_90": what the digits say.
static int arch_number(const std::string& arch) { return std::atoi(arch.c_str() + std::min(arch.find_first_of("0123456789"), arch.size())); }

Status load_module(const void* image, Module** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (Status status = check_uncaptured("the loading of a module")) return status;
    if (!image || std::strncmp(static_cast<const char*>(image), MAGIC, sizeof MAGIC - 1) != 0) {
        return misuse(INVALID_IMAGE, "the emulated GPU loads only what its own compiler made");
    }
    std::istringstream lines(static_cast<const char*>(image) + sizeof MAGIC - 1);
    std::string file, hash, arch;
    std::getline(lines, file) && std::getline(lines, hash) && std::getline(lines, arch);
    for (const emulator::Source& source : emulator::sources()) {
        if (source.file != file || std::to_string(source.hash) != hash) continue;
        const std::string& own = state().options.arch;
        bool fits = is_nvidia() ? arch_number(arch) / 10 == arch_number(own) / 10 || arch.rfind("compute_", 0) == 0 : arch == own;
        if (!fits) return misuse(NO_BINARY_FOR_GPU, "a module for " + arch + " on a device of " + own);
        Module* module = new Module{gpu, file, {}};
        for (const emulator::Registered& kernel : emulator::kernels()) {
            if (kernel.file == file) module->kernels.push_back(&kernel);
        }
        state().alive.insert(module);
        state().counters.modules++;
        *to = module;
        return OK;
    }
    return misuse(INVALID_IMAGE, "an image of " + file + " that another build of the emulated GPU made");
}

Status unload_module(Module* module) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (!is_alive(module)) return misuse(INVALID_HANDLE, "a module that was unloaded or never loaded");
    for (Stream* stream : gpu->streams) run_until(*stream, stream->issued);
    state().alive.erase(module);
    return OK;
}

Status find_function(Module* module, const char* name, Function** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (!is_alive(module)) return misuse(INVALID_HANDLE, "a module that was unloaded or never loaded");
    for (const emulator::Registered* kernel : module->kernels) {
        if (std::strcmp(kernel->name, name) != 0) continue;
        // NVIDIA's cards give more only where it was asked for.
        Function* function = new Function{module, kernel, is_nvidia() ? 48 << 10 : max_shared_bytes()};
        state().alive.insert(function);
        *to = function;
        return OK;
    }
    return NOT_FOUND;
}

}  // namespace driver
