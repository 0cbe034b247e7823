// Rows of the embedding table, as the first values of the residual stream.
// One block for each token.

#include "types.cuh"

struct EmbedArgs {
    /// One for each block.
    const u32* tokens;
    /// `[vocabulary][cols]`
    const void* table;
    /// `[tokens][cols]`
    float* out;
    u32 cols;
    float scale;
};

namespace {

template <class T>
DEVICE void embed(const EmbedArgs& args) {
    u32 row = block_index_x();
    const T* from = static_cast<const T*>(args.table) + u64(args.tokens[row]) * args.cols;
    float* to = args.out + u64(row) * args.cols;
    for (u32 i = thread_index(); i < args.cols; i += block_threads()) to[i] = to_float(from[i]) * args.scale;
}

}  // namespace

KERNEL(embed_f32, EmbedArgs, 256, embed<float>)
KERNEL(embed_bf16, EmbedArgs, 256, embed<bf16>)
KERNEL(embed_f16, EmbedArgs, 256, embed<f16>)
