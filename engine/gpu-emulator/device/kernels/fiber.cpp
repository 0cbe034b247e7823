#include "fiber.h"

#include <cstdint>

#if defined(__x86_64__)

// Saves what a function must leave as it was, and takes the other stack's.
asm(R"(
    .text
    .globl emulator_switch
    .hidden emulator_switch
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, .-emulator_switch
)");

namespace emulator {

void prepare(Switch& to, char* stack, size_t bytes, void (*entry)()) {
    uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) / 16 * 16;
    void** slots = reinterpret_cast<void**>(top) - 2;
    // A function is entered as if by a call: the stack is 8 bytes off a multiple of 16.
    slots[1] = nullptr;
    slots[0] = reinterpret_cast<void*>(entry);
    for (int i = 1; i <= 6; i++) slots[-i] = nullptr;
    to.stack = slots - 6;
}

}  // namespace emulator

#else

namespace emulator {

void prepare(Switch& to, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&to.start);
    to.start.uc_stack.ss_sp = stack;
    to.start.uc_stack.ss_size = bytes;
    to.start.uc_link = nullptr;
    makecontext(&to.start, entry, 0);
    to.fresh = true;
}

}  // namespace emulator

#endif
