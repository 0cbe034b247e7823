// A program of NVRTC or hiprtc, which differ in names and options only.
#pragma once

#include <cstring>

#include "driver.h"

namespace driver {

struct Program {
    std::string text, log, image;
    std::vector<std::pair<std::string, std::string>> headers;
};

constexpr int INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6;

inline int create_program(Program** to, const char* text, int num_headers, const char* const* headers, const char* const* names) {
    if (!text || num_headers < 0) return INVALID_INPUT;
    *to = new Program;
    (*to)->text = text;
    for (int i = 0; i < num_headers; i++) (*to)->headers.emplace_back(names[i], headers[i]);
    return 0;
}

inline int destroy_program(Program** program) {
    if (!program || !*program) return INVALID_PROGRAM;
    delete *program;
    *program = nullptr;
    return 0;
}

/// Options must begin as one of `known` does; what follows one of `arch_names` is the architecture.
inline int compile_program(Program* program, int num_options, const char* const* options, const std::vector<const char*>& known,
                           const std::vector<const char*>& arch_names) {
    if (!program) return INVALID_PROGRAM;
    auto begins = [](const std::string& text, const char* start) { return text.rfind(start, 0) == 0; };
    std::string arch;
    for (int i = 0; i < num_options; i++) {
        std::string option = options[i];
        bool is_known = i > 0 && option[0] != '-';
        for (const char* name : known) is_known |= begins(option, name);
        for (const char* name : arch_names) {
            if (begins(option, name)) arch = option.substr(std::strlen(name));
        }
        if (!is_known) {
            program->log = "error: unrecognized option " + option + " found\n";
            return INVALID_OPTION;
        }
    }
    std::lock_guard<std::mutex> guard(state().lock);
    return compile(program->text, program->headers, arch, program->image, program->log) ? 0 : COMPILATION;
}

inline int size_of(const Program* program, const std::string Program::*part, size_t* to) {
    if (!program) return INVALID_PROGRAM;
    *to = (program->*part).size() + 1;
    return 0;
}

inline int give(const Program* program, const std::string Program::*part, char* to) {
    if (!program) return INVALID_PROGRAM;
    std::memcpy(to, (program->*part).c_str(), (program->*part).size() + 1);
    return 0;
}

}  // namespace driver
