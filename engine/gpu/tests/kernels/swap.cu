// Exchanges elements of two arrays.

#include "device.cuh"

struct SwapArgs {
    u32* a;
    u32* b;
    u32 total;
    u32 unused;
};

namespace {

DEVICE void swap(const SwapArgs& args) {
    u32 i = block_index_x() * block_threads() + thread_index();
    if (i >= args.total) return;
    u32 value = args.a[i];
    args.a[i] = args.b[i];
    args.b[i] = value;
}

}  // namespace

KERNEL(swap, SwapArgs, 256, swap)
