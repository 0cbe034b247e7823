// Adds a number to each element, and the sum of a block's elements by way of shared memory whose size the launch gives.

#include "device.cuh"

struct AddArgs {
    u32* x;
    u32* sums;
    u32 total;
    u32 amount;
};

namespace {

DEVICE void add(const AddArgs& args) {
    u32 i = block_index_x() * block_threads() + thread_index();
    if (i < args.total) args.x[i] += args.amount;
}

DEVICE void sum(const AddArgs& args) {
    DYNAMIC_SHARED(u32, values);
    u32 i = block_index_x() * block_threads() + thread_index();
    values[thread_index()] = i < args.total ? args.x[i] : 0;
    sync_block();
    if (thread_index() == 0) {
        u32 sum = 0;
        for (u32 j = 0; j < block_threads(); j++) sum += values[j];
        args.sums[block_index_x()] = sum;
    }
}

}  // namespace

KERNEL(add, AddArgs, 256, add)
KERNEL(sum, AddArgs, 256, sum)
