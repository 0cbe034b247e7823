// Kernels that the emulator's own tests make right and wrong use of.

#include "device.cuh"

struct Args {
    u32* to;
    const u32* from;
    u32 count, value;
};

DEVICE u32 place() { return block_index_x() * block_threads() + thread_index(); }

DEVICE void add(const Args& args) {
    if (place() < args.count) args.to[place()] = args.from[place()] + args.value;
}

/// Without looking at `count`.
DEVICE void add_all(const Args& args) { args.to[place()] = args.from[place()] + args.value; }

/// All threads write one place.
DEVICE void same_place(const Args& args) { args.to[0] = thread_index(); }

/// Every block writes what another one wrote.
DEVICE void same_place_of_blocks(const Args& args) {
    if (thread_index() == 0) args.to[0] = block_index_x();
}

/// What one thread writes, its neighbour reads; the barrier that orders them can be left out.
DEVICE void neighbours(const Args& args) {
    DYNAMIC_SHARED(u32, values);
    values[thread_index()] = args.from[place()];
    if (args.value == 0) sync_block();
    args.to[place()] = values[(thread_index() + 1) % block_threads()];
}

DEVICE void unwritten(const Args& args) {
    DYNAMIC_SHARED(u32, values);
    args.to[place()] = values[thread_index()];
}

/// Half of the threads never come to the barrier.
DEVICE void half_barrier(const Args&) {
    if (thread_index() < block_threads() / 2) sync_block();
}

KERNEL(add, Args, 256, add)
KERNEL(add_all, Args, 256, add_all)
KERNEL(same_place, Args, 256, same_place)
KERNEL(same_place_of_blocks, Args, 256, same_place_of_blocks)
KERNEL(neighbours, Args, 256, neighbours)
KERNEL(unwritten, Args, 256, unwritten)
KERNEL(half_barrier, Args, 256, half_barrier)
