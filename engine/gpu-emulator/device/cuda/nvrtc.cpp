// NVRTC's names for the compiler that has compiled already.

#include <cstring>

#include "../driver/driver.h"

namespace {

struct Program {
    std::string text, log, image;
    std::vector<std::pair<std::string, std::string>> headers;
};

constexpr int INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6;

int give(const std::string& text, char* to) {
    std::memcpy(to, text.c_str(), text.size() + 1);
    return 0;
}

/// Whether an option is one that NVRTC has.
bool is_known(const std::string& option) {
    for (const char* name : {"--gpu-architecture", "-arch", "--std", "-std", "--define-macro", "-D", "--include-path", "-I", "--fmad", "-fmad", "--use_fast_math",
                             "--ftz", "--prec-div", "--prec-sqrt", "-default-device", "--device-as-default-execution-space", "--extra-device-vectorization",
                             "--maxrregcount", "-lineinfo", "--generate-line-info", "--ptxas-options", "-Xptxas", "--device-debug", "-G", "-w",
                             "--disable-warnings", "--restrict", "-restrict", "--split-compile", "--minimal", "--no-cache", "--diag-suppress"}) {
        if (option.rfind(name, 0) == 0) return true;
    }
    return false;
}

}  // namespace

extern "C" {

int nvrtcVersion(int* major, int* minor) {
    *major = 12;
    *minor = 8;
    return 0;
}

const char* nvrtcGetErrorString(int result) {
    switch (result) {
        case 0: return "NVRTC_SUCCESS";
        case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        default: return "NVRTC_ERROR unknown";
    }
}

int nvrtcGetNumSupportedArchs(int* to) {
    *to = 3;
    return 0;
}

int nvrtcGetSupportedArchs(int* to) {
    to[0] = 80;
    to[1] = 90;
    to[2] = 100;
    return 0;
}

int nvrtcCreateProgram(Program** to, const char* text, const char*, int num_headers, const char* const* headers, const char* const* names) {
    if (!text || num_headers < 0) return INVALID_INPUT;
    *to = new Program;
    (*to)->text = text;
    for (int i = 0; i < num_headers; i++) (*to)->headers.emplace_back(names[i], headers[i]);
    return 0;
}

int nvrtcDestroyProgram(Program** program) {
    if (!program || !*program) return INVALID_PROGRAM;
    delete *program;
    *program = nullptr;
    return 0;
}

int nvrtcCompileProgram(Program* program, int num_options, const char* const* options) {
    if (!program) return INVALID_PROGRAM;
    std::string arch;
    for (int i = 0; i < num_options; i++) {
        std::string option = options[i];
        bool is_value = i > 0 && option[0] != '-';
        if (!is_known(option) && !is_value) {
            program->log = "nvrtc: error: unrecognized option " + option + " found\n";
            return INVALID_OPTION;
        }
        for (const char* name : {"--gpu-architecture=", "-arch="}) {
            if (option.rfind(name, 0) == 0) arch = option.substr(std::strlen(name));
        }
    }
    std::lock_guard<std::mutex> guard(driver::state().lock);
    return driver::compile(program->text, program->headers, arch, program->image, program->log) ? 0 : COMPILATION;
}

int nvrtcGetProgramLogSize(Program* program, size_t* to) {
    if (!program) return INVALID_PROGRAM;
    *to = program->log.size() + 1;
    return 0;
}
int nvrtcGetProgramLog(Program* program, char* to) { return program ? give(program->log, to) : INVALID_PROGRAM; }

int nvrtcGetCUBINSize(Program* program, size_t* to) {
    if (!program || program->image.empty()) return INVALID_PROGRAM;
    *to = program->image.size() + 1;
    return 0;
}
int nvrtcGetCUBIN(Program* program, char* to) { return program ? give(program->image, to) : INVALID_PROGRAM; }
int nvrtcGetPTXSize(Program* program, size_t* to) { return nvrtcGetCUBINSize(program, to); }
int nvrtcGetPTX(Program* program, char* to) { return nvrtcGetCUBIN(program, to); }
}
