// Copies of blocks of the cache, one after the other: what a later one reads, an earlier one may have written.
// Every thread keeps to the same bytes of all blocks, so that no thread waits for another. Grid x over a block's bytes, y over layers.

#include "types.cuh"

struct CopyBlocksArgs {
    /// The caches of all layers, one after the other.
    void* cache;
    /// Pairs of (from, to).
    const u32* copies;
    u32 num_copies;
    /// Of one block in one layer; a multiple of 16.
    u32 block_bytes;
    u64 layer_bytes;
};

namespace {

struct alignas(16) Piece {
    u32 words[4];
};

DEVICE void copy_in_order(const CopyBlocksArgs& args) {
    u32 pieces = args.block_bytes / sizeof(Piece), i = block_index_x() * block_threads() + thread_index();
    if (i >= pieces) return;
    Piece* layer = reinterpret_cast<Piece*>(static_cast<char*>(args.cache) + block_index_y() * args.layer_bytes);
    for (u32 copy = 0; copy < args.num_copies; copy++) {
        u64 from = args.copies[2 * copy], to = args.copies[2 * copy + 1];
        layer[to * pieces + i] = layer[from * pieces + i];
    }
}

}  // namespace

KERNEL(copy_blocks, CopyBlocksArgs, 256, copy_in_order)
