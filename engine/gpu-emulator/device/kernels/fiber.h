// Switches between stacks: some of the processor's registers on x86-64, setjmp elsewhere.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <setjmp.h>
#include <ucontext.h>
#endif

namespace emulator {

#if defined(__x86_64__)

/// Where a stack was left.
struct Switch {
    void* stack = nullptr;
};

extern "C" void emulator_switch(void** from, void* to);

/// Goes on with `to`; comes back when somebody goes on with `from`.
inline void switch_stacks(Switch& from, Switch& to) { emulator_switch(&from.stack, to.stack); }

/// Makes `to` begin with `entry` on a stack of its own.
void prepare(Switch& to, char* stack, size_t bytes, void (*entry)());

#else

struct Switch {
    jmp_buf here;
    ucontext_t start;
    bool fresh = false;
};

inline void switch_stacks(Switch& from, Switch& to) {
    if (_setjmp(from.here) != 0) return;
    if (!to.fresh) _longjmp(to.here, 1);
    to.fresh = false;
    setcontext(&to.start);
}

void prepare(Switch& to, char* stack, size_t bytes, void (*entry)());

#endif

}  // namespace emulator
