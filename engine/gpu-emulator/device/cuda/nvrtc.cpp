// NVRTC's names for the compiler that has compiled already.

#include "../driver/program.h"

using namespace driver;

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
    return create_program(to, text, num_headers, headers, names);
}
int nvrtcDestroyProgram(Program** program) { return destroy_program(program); }
int nvrtcCompileProgram(Program* program, int num_options, const char* const* options) {
    static const std::vector<const char*> known = {
        "--gpu-architecture", "-arch", "--std", "-std", "--define-macro", "-D", "--include-path", "-I", "--fmad", "-fmad", "--use_fast_math", "--ftz",
        "--prec-div", "--prec-sqrt", "-default-device", "--device-as-default-execution-space", "--extra-device-vectorization", "--maxrregcount", "-lineinfo",
        "--generate-line-info", "--ptxas-options", "-Xptxas", "--device-debug", "-G", "-w", "--disable-warnings", "--restrict", "-restrict", "--split-compile",
        "--minimal", "--no-cache", "--diag-suppress"};
    return compile_program(program, num_options, options, known, {"--gpu-architecture=", "-arch="});
}
int nvrtcGetProgramLogSize(Program* program, size_t* to) { return size_of(program, &Program::log, to); }
int nvrtcGetProgramLog(Program* program, char* to) { return give(program, &Program::log, to); }
int nvrtcGetCUBINSize(Program* program, size_t* to) { return size_of(program, &Program::image, to); }
int nvrtcGetCUBIN(Program* program, char* to) { return give(program, &Program::image, to); }
int nvrtcGetPTXSize(Program* program, size_t* to) { return size_of(program, &Program::image, to); }
int nvrtcGetPTX(Program* program, char* to) { return give(program, &Program::image, to); }
}
