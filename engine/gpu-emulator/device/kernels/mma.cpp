// A tensor core's product, with the sums in the order that the kernels' plain twin has.

#include "device.h"

namespace emulator {

void mma(float* d, const Fragments& mine) {
    static_assert(sizeof(Fragments) <= MAX_EXCHANGE, "all lanes hand in theirs at once");
    exchange(&mine, sizeof mine, "mma");
    const unsigned lane = device->thread % 32, first = device->thread % EMULATED_WARP - lane, g = lane / 4, t = lane % 4;
    auto of = [&](unsigned other) { return static_cast<const Fragments*>(deposit(first + other)); };
    for (unsigned s = 0; s < 4; s++) {
        const float* a = of(g * 4 + s)->a;
        for (unsigned column = 0; column < 2; column++) {
            const float* b = of((2 * t + column) * 4 + s)->b;
            for (unsigned row = 0; row < 2; row++) {
                for (unsigned half = 0; half < 2; half++) {
                    const float *x = a + 2 * (row + 2 * half), *y = b + 2 * half;
                    d[2 * row + column] += x[0] * y[0] + x[1] * y[1];
                }
            }
        }
    }
}

}  // namespace emulator
