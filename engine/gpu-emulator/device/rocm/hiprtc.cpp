// hiprtc's names for the compiler that has compiled already.

#include "../driver/program.h"

using namespace driver;

extern "C" {

int hiprtcVersion(int* major, int* minor) {
    *major = 6;
    *minor = 0;
    return 0;
}

const char* hiprtcGetErrorString(int result) {
    switch (result) {
        case 0: return "HIPRTC_SUCCESS";
        case INVALID_INPUT: return "HIPRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "HIPRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION: return "HIPRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "HIPRTC_ERROR_COMPILATION";
        default: return "HIPRTC_ERROR unknown";
    }
}

int hiprtcCreateProgram(Program** to, const char* text, const char*, int num_headers, const char* const* headers, const char* const* names) {
    return create_program(to, text, num_headers, headers, names);
}
int hiprtcDestroyProgram(Program** program) { return destroy_program(program); }
int hiprtcCompileProgram(Program* program, int num_options, const char* const* options) {
    return compile_program(program, num_options, options, {"-"}, {"--offload-arch=", "--gpu-architecture="});
}
int hiprtcGetProgramLogSize(Program* program, size_t* to) { return size_of(program, &Program::log, to); }
int hiprtcGetProgramLog(Program* program, char* to) { return give(program, &Program::log, to); }
int hiprtcGetCodeSize(Program* program, size_t* to) { return size_of(program, &Program::image, to); }
int hiprtcGetCode(Program* program, char* to) { return give(program, &Program::image, to); }
}
