// Rows of the embedding table, as the first values of the residual stream. A table may be encoded, as GGUF's are.
// One block for each token.

#include "weights.cuh"

struct EmbedArgs {
    /// One for each block: a token, or `FROM_PREVIOUS` and a row of `previous`.
    const u32* tokens;
    /// What the step before this one sampled, one for each row of its logits. The host need not know them.
    const u32* previous;
    /// `[vocabulary][columns]`
    WeightArgs table;
    /// `[tokens][columns]`
    float* out;
    float scale;
};

namespace {

constexpr u32 FROM_PREVIOUS = 0x80000000u;

template <class Format>
DEVICE void embed_row(const EmbedArgs& args, u32 token) {
    constexpr u32 N = Format::COLUMNS;
    float* to = args.out + u64(block_index_x()) * args.table.columns;
    for (u32 column = thread_index() * N; column < args.table.columns; column += block_threads() * N) {
        float values[N];
        load_weights<Format>(args.table, token, column, values);
        UNROLL
        for (u32 i = 0; i < N; i++) to[column + i] = values[i] * args.scale;
    }
}

DEVICE u32 token_of_block(const EmbedArgs& args) {
    u32 token = args.tokens[block_index_x()];
    if (token & FROM_PREVIOUS) token = args.previous[token & ~FROM_PREVIOUS];
    return token;
}

template <class Format>
DEVICE void embed(const EmbedArgs& args) {
    embed_row<Format>(args, token_of_block(args));
}
template <class T>
DEVICE void embed_plain(const EmbedArgs& args) {
    if (args.table.columns % 8 == 0) embed_row<Plain<T, 8>>(args, token_of_block(args));
    else embed_row<Plain<T, 1>>(args, token_of_block(args));
}

}  // namespace

KERNEL(embed_f32, EmbedArgs, 256, embed_plain<float>)
KERNEL(embed_bf16, EmbedArgs, 256, embed_plain<bf16>)
KERNEL(embed_f16, EmbedArgs, 256, embed_plain<f16>)
IF_Q8_0(KERNEL(embed_q8_0, EmbedArgs, 256, embed<Q8_0>))
IF_Q4_K(KERNEL(embed_q4_k, EmbedArgs, 256, embed<Q4_K>))
IF_Q5_K(KERNEL(embed_q5_k, EmbedArgs, 256, embed<Q5_K>))
IF_Q6_K(KERNEL(embed_q6_k, EmbedArgs, 256, embed<Q6_K>))
IF_INT4(KERNEL(embed_int4, EmbedArgs, 256, embed<Int4>))
IF_FP8(KERNEL(embed_fp8, EmbedArgs, 256, embed<Fp8>))
