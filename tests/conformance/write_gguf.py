#!/usr/bin/env python3
"""Writes GGUF files by the gguf package, and beside each the same model as a Hugging Face folder with the dequantised weights.

usage: write_gguf.py FOLDER TOKENIZER_JSON        needs gguf, numpy and sentencepiece

FOLDER gets NAME.gguf (or its parts) and NAME/ for every model, and texts.json: texts with the ids that SentencePiece gives them. Names of
tensors come from the package's own table; what llama.cpp's converter does to weights (queries and keys of llama in rotated pairs, 1 added
to Gemma's norms, experts stacked, rotary factors) is done here by its description. The package quantises Q8_0 and Q4_0; blocks of
K-quants are made here and checked by its dequantiser.
"""
import json, os, sys
import numpy as np
import gguf
import sentencepiece
from gguf import GGMLQuantizationType as T, quants

FOLDER, TOKENIZER = sys.argv[1], json.load(open(sys.argv[2]))
HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, LAYERS, EXPERTS = 256, 512, 4, 2, 64, 2, 4
TYPES = {"f32": T.F32, "f16": T.F16, "bf16": T.BF16, "q8_0": T.Q8_0, "q4_0": T.Q4_0, "q4_k": T.Q4_K, "q5_k": T.Q5_K, "q6_k": T.Q6_K}
TOKENS = [t for t, _ in sorted(TOKENIZER["model"]["vocab"].items(), key=lambda item: item[1])]
SPECIAL = {t["id"] for t in TOKENIZER["added_tokens"]}
VOCAB = len(TOKENS)
TEXTS = ["Hello world", "  two leading and trailing  ", "a\n\nb\t c", "naïve café, 日本語 🙂 ẞ", "12345 6.78", "don't DON'T we'll", "x = y[0] ** 2;", "▁under",
         "deé́", "\u200b\u00a0wide\u3000space", "The quick brown fox jumps over the lazy dog."]
random = np.random.default_rng(11)


def scale_and_min_blocks(x, bits):
    """K-quants with minima: codes [n, 8, 32], 6-bit scales and minima [n, 8], f16 super-scales [n, 1]."""
    blocks = x.reshape(-1, 8, 32)
    low = np.minimum(blocks.min(-1), 0)
    scale = np.maximum(blocks.max(-1) - low, 1e-8) / (2**bits - 1)
    d = (scale.max(-1, keepdims=True) / 63).astype(np.float16)
    dmin = (np.maximum(-low.min(-1, keepdims=True), 1e-8) / 63).astype(np.float16)
    sc = np.clip(np.ceil(scale / d.astype(np.float32)), 1, 63).astype(np.uint8)
    m = np.clip(np.round(-low / dmin.astype(np.float32)), 0, 63).astype(np.uint8)
    step, offset = d.astype(np.float32) * sc, dmin.astype(np.float32) * m
    codes = np.clip(np.round((blocks + offset[..., None]) / step[..., None]), 0, 2**bits - 1).astype(np.uint8)
    first = sc[:, :4] | (sc[:, 4:] >> 4 << 6)
    second = m[:, :4] | (m[:, 4:] >> 4 << 6)
    third = (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    return codes, [d.view(np.uint8), dmin.view(np.uint8), first, second, third]


def nibbles(codes):
    return (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(len(codes), 128)


def q4_k(x):
    codes, head = scale_and_min_blocks(x, 4)
    return np.concatenate([*head, nibbles(codes)], -1)


def q5_k(x):
    codes, head = scale_and_min_blocks(x, 5)
    high = sum((codes[:, i] >> 4) << i for i in range(8)).astype(np.uint8)
    return np.concatenate([*head, high, nibbles(codes & 15)], -1)


def q6_k(x):
    blocks = x.reshape(-1, 16, 16)
    scale = np.maximum(abs(blocks).max(-1), 1e-8) / 31
    d = (scale.max(-1, keepdims=True) / 127).astype(np.float16)
    sc = np.clip(np.ceil(scale / d.astype(np.float32)), 1, 127).astype(np.int8)
    step = d.astype(np.float32) * sc
    codes = (np.clip(np.round(blocks / step[..., None]), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([codes[:, :, 0] & 15 | (codes[:, :, 2] & 15) << 4, codes[:, :, 1] & 15 | (codes[:, :, 3] & 15) << 4], -1)
    high = sum((codes[:, :, k] >> 4) << 2 * k for k in range(4)).astype(np.uint8)
    n = len(blocks)
    return np.concatenate([low.reshape(n, 128), high.reshape(n, 64), sc.view(np.uint8), d.view(np.uint8)], -1)


def quantize(x, kind):
    """The bytes, and the values that they stand for."""
    makers = {T.Q4_K: q4_k, T.Q5_K: q5_k, T.Q6_K: q6_k}
    if kind in makers:
        data = makers[kind](x).reshape(*x.shape[:-1], -1)
    else:
        data = quants.quantize(x, kind)
    values = quants.dequantize(data, kind).reshape(x.shape).astype(np.float32)
    worst = {T.F32: 0, T.F16: 1e-3, T.BF16: 8e-3, T.Q8_0: 1e-2, T.Q6_K: 5e-2, T.Q5_K: 8e-2}.get(kind, 0.2) * abs(x).max()
    assert abs(values - x).max() <= worst, (kind, abs(values - x).max(), worst)
    return data, values


def rotated_pairs(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(theta, factor, low, high, original):
    frequency = theta ** -(np.arange(0, HEAD_DIM, 2, dtype=np.float64) / HEAD_DIM)
    kept = np.clip((original * frequency / (2 * np.pi) - low) / (high - low), 0, 1)
    return (1 / ((1 - kept) / factor + kept)).astype(np.float32)


def weights(arch, biased):
    """Names and values as Hugging Face has them."""
    def matrix(rows, cols, scale=1.5): return (random.standard_normal((rows, cols)) * scale / np.sqrt(cols)).astype(np.float32)
    def norm(n): return (random.standard_normal(n) * 0.2 + (0 if arch == "gemma3" else 1)).astype(np.float32)
    yield "model.embed_tokens.weight", matrix(VOCAB, HIDDEN, 4)
    yield "model.norm.weight", norm(HIDDEN)
    if arch != "gemma3":
        yield "lm_head.weight", matrix(VOCAB, HIDDEN, 4)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        for name in ["input_layernorm", "post_attention_layernorm"] + (["pre_feedforward_layernorm", "post_feedforward_layernorm"] if arch == "gemma3" else []):
            yield p + name + ".weight", norm(HIDDEN)
        for name, rows in [("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)]:
            yield p + f"self_attn.{name}_proj.weight", matrix(rows, HIDDEN)
            if biased:
                yield p + f"self_attn.{name}_proj.bias", (random.standard_normal(rows) * 0.2).astype(np.float32)
        yield p + "self_attn.o_proj.weight", matrix(HIDDEN, HEADS * HEAD_DIM)
        if arch in ("qwen3", "qwen3moe", "gemma3"):
            yield p + "self_attn.q_norm.weight", norm(HEAD_DIM)
            yield p + "self_attn.k_norm.weight", norm(HEAD_DIM)
        if arch in ("mixtral", "qwen3moe"):
            block, names = ("block_sparse_moe", ["w1", "w3", "w2"]) if arch == "mixtral" else ("mlp", ["gate_proj", "up_proj", "down_proj"])
            yield p + block + ".gate.weight", matrix(EXPERTS, HIDDEN)
            for e in range(EXPERTS):
                for name, shape in zip(names, [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)]):
                    yield p + f"{block}.experts.{e}.{name}.weight", matrix(*shape)
        else:
            for name, shape in [("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))]:
                yield p + f"mlp.{name}_proj.weight", matrix(*shape)


def config(arch):
    common = dict(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                  head_dim=HEAD_DIM, rms_norm_eps=1e-5, max_position_embeddings=256, rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1)
    own = {
        "llama": dict(architectures=["LlamaForCausalLM"], rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                                             original_max_position_embeddings=64)),
        "qwen2": dict(architectures=["Qwen2ForCausalLM"]),
        "qwen3": dict(architectures=["Qwen3ForCausalLM"], rope_scaling=dict(rope_type="yarn", factor=2.0, original_max_position_embeddings=128)),
        "mixtral": dict(architectures=["MixtralForCausalLM"], num_local_experts=EXPERTS, num_experts_per_tok=2, sliding_window=None),
        "qwen3moe": dict(architectures=["Qwen3MoeForCausalLM"], num_experts=EXPERTS, num_experts_per_tok=2, moe_intermediate_size=INNER, norm_topk_prob=True,
                         decoder_sparse_step=1, mlp_only_layers=[]),
        "gemma3": dict(architectures=["Gemma3ForCausalLM"], tie_word_embeddings=True, rope_theta=1e6, rope_local_base_freq=1e4, sliding_window=16,
                       query_pre_attn_scalar=HEAD_DIM, hidden_activation="gelu_pytorch_tanh", layer_types=["sliding_attention"] * LAYERS),
    }
    return common | own[arch]


def add_metadata(w, arch, c):
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(HIDDEN)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(INNER)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_key_length(HEAD_DIM)
    w.add_value_length(HEAD_DIM)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_rope_dimension_count(HEAD_DIM)
    if arch in ("mixtral", "qwen3moe"):
        w.add_expert_count(EXPERTS)
        w.add_expert_used_count(2)
    if arch == "qwen3moe":
        w.add_expert_feed_forward_length(INNER)
    if arch == "gemma3":
        w.add_sliding_window(c["sliding_window"])
    if arch == "qwen3":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(2.0)
        w.add_rope_scaling_orig_ctx_len(128)


def add_byte_level(w):
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(TOKENS)
    w.add_token_types([int(gguf.TokenType.CONTROL if i in SPECIAL else gguf.TokenType.NORMAL) for i in range(VOCAB)])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in TOKENIZER["model"]["merges"]])
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    w.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def add_sentence_piece(w, model):
    def kind(i):
        return gguf.TokenType.UNKNOWN if model.IsUnknown(i) else gguf.TokenType.CONTROL if model.IsControl(i) else gguf.TokenType.BYTE if model.IsByte(i) else gguf.TokenType.NORMAL
    ids = range(model.GetPieceSize())
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([model.IdToPiece(i) for i in ids] + [f"[filler {i}]" for i in range(len(ids), VOCAB)])
    w.add_token_scores([model.GetScore(i) for i in ids] + [-1000.0] * (VOCAB - len(ids)))
    w.add_token_types([int(kind(i)) for i in ids] + [int(gguf.TokenType.UNUSED)] * (VOCAB - len(ids)))
    w.add_bos_token_id(model.bos_id())
    w.add_eos_token_id(model.eos_id())
    w.add_unk_token_id(model.unk_id())
    w.add_add_space_prefix(True)


def safetensors(path, tensors):
    header, offset = {}, 0
    for name, value in tensors.items():
        header[name] = dict(dtype="F32", shape=list(value.shape), data_offsets=[offset, offset + value.nbytes])
        offset += value.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(np.ascontiguousarray(v, np.float32).tobytes() for v in tensors.values()))


def write(name, arch, kind, pieces=None, parts=0):
    file_arch = "llama" if arch == "mixtral" else arch
    c = config(arch)
    w = gguf.GGUFWriter(f"{FOLDER}/{name}.gguf", file_arch, split_max_tensors=parts)
    add_metadata(w, arch, c)
    add_sentence_piece(w, pieces) if pieces else add_byte_level(w)
    table = gguf.get_tensor_name_map(next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == file_arch), LAYERS)
    reference, stacks = {}, {}
    if arch == "llama":
        w.add_tensor("rope_freqs.weight", llama3_factors(c["rope_theta"], 8.0, 1.0, 4.0, 64))
    for hf, value in weights(arch, biased=arch == "qwen2"):
        is_matrix = value.ndim == 2 and not hf.endswith(".gate.weight")
        # As Q4_K_M has it: what matters most gets more bits.
        this = T.Q6_K if kind == T.Q4_K and ("down_proj" in hf or "lm_head" in hf) else kind
        stored = value + 1 if arch == "gemma3" and hf.endswith("norm.weight") else value
        if file_arch == "llama" and ("q_proj" in hf or "k_proj" in hf):
            stored = rotated_pairs(stored, HEADS if "q_proj" in hf else KV_HEADS)
        data, _ = quantize(stored, this) if is_matrix else (stored, None)
        reference[hf] = quantize(value, this)[1] if is_matrix else value
        raw = this if is_matrix and this not in (T.F32, T.F16) else None
        if ".experts." in hf:
            before, rest = hf.split(".experts.")
            part = rest.split(".", 1)[1]
            stacks.setdefault(f"{before}.experts.{part}", []).append(data)
            if len(stacks[f"{before}.experts.{part}"]) < EXPERTS:
                continue
            data, hf = np.stack(stacks[f"{before}.experts.{part}"]), f"{before}.experts.{part}"
        w.add_tensor(table.get_name(hf, try_suffixes=(".weight", ".bias")), data, raw_dtype=raw)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.makedirs(f"{FOLDER}/{name}")
    json.dump(c, open(f"{FOLDER}/{name}/config.json", "w"))
    json.dump(TOKENIZER, open(f"{FOLDER}/{name}/tokenizer.json", "w"))
    safetensors(f"{FOLDER}/{name}/model.safetensors", reference)


def sentence_piece():
    corpus = TEXTS + [f"{word} {other}{end}" for word in TEXTS[10].split() for other in "jumping dogs don't bark 2024 times, naïve fox".split() for end in ".;!"] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=f"{FOLDER}/spm", model_type="bpe", vocab_size=460, byte_fallback=True, character_coverage=0.99,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, hard_vocab_limit=False,
        minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_file=f"{FOLDER}/spm.model")


for suffix, kind in TYPES.items():
    write(f"llama-{suffix}", "llama", kind)
for name, arch, kind in [("qwen2", "qwen2", T.Q8_0), ("qwen3", "qwen3", T.Q4_K), ("gemma3", "gemma3", T.Q8_0), ("mixtral", "mixtral", T.Q4_0), ("qwen3moe", "qwen3moe", T.Q8_0)]:
    write(name, arch, kind)
write("split", "llama", T.Q8_0, parts=9)
model = sentence_piece()
write("pieces", "llama", T.F16, pieces=model)
json.dump([[text, model.encode(text)] for text in TEXTS], open(f"{FOLDER}/texts.json", "w"))
