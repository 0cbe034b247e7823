// Copies from global to shared memory that go on while the thread does something else. A copy is there for the thread that asked for it
// after `copy_wait`, and for others after a barrier behind that.
#pragma once

#include "device.cuh"

#if defined(TOKENFLOW_EMULATOR)

struct alignas(16) Copied {
    u32 words[4];
};
DEVICE void copy_async_16(void* shared, const void* global) { emulator::copy_async(shared, global, 16); }
/// Zeros unless `exists`; then nothing is read.
DEVICE void copy_async_16_if(bool exists, void* shared, const void* global) {
    if (exists) copy_async_16(shared, global);
    else *static_cast<Copied*>(shared) = Copied{};
}
DEVICE void copy_commit() { emulator::copy_commit(); }
/// Waits until at most `PENDING` of the latest groups are under way.
template <u32 PENDING>
DEVICE void copy_wait() {
    emulator::copy_wait(PENDING);
}

#elif defined(TOKENFLOW_CUDA)

DEVICE void copy_async_16(void* shared, const void* global) {
    u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
/// Zeros unless `exists`; then nothing is read.
DEVICE void copy_async_16_if(bool exists, void* shared, const void* global) {
    u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(exists ? 16 : 0) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `PENDING` of the latest groups are under way.
template <u32 PENDING>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

struct alignas(16) Copied {
    u32 words[4];
};
DEVICE void copy_async_16(void* shared, const void* global) { *static_cast<Copied*>(shared) = *static_cast<const Copied*>(global); }
/// Zeros unless `exists`; then nothing is read.
DEVICE void copy_async_16_if(bool exists, void* shared, const void* global) {
    *static_cast<Copied*>(shared) = exists ? *static_cast<const Copied*>(global) : Copied{};
}
DEVICE void copy_commit() {}
template <u32 PENDING>
DEVICE void copy_wait() {}

#endif
