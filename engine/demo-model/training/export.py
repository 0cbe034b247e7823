"""The trained weights as the files of a Hugging Face folder, checked against transformers."""

import json
import random
from pathlib import Path

from .chats import Chats
from .collect import load_corpus
from .model import build_model
from .shape import (EPS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, MAX_POS, MLP, SEED, SPECIALS, THETA, VOCAB)
from .tokens import TEMPLATE, Encoder, pack

REFERENCE = ["What is ownership?", "Explain closures."]  # the prompts of reference.json


def write(path, data):
    """A reader sees the old file or the new one, never a half."""
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_bytes(data if isinstance(data, bytes) else data.encode())
    tmp.replace(path)


def pretty(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def export(args):
    import torch
    from safetensors.torch import save
    from transformers import Qwen3Config

    work, out = Path(args.work), Path(args.out)
    saved = torch.load(work / "checkpoint.pt")
    weights = saved["ema"] if args.ema else saved["model"]
    encode = Encoder(work / "tokenizer.json")
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, intermediate_size=MLP, max_position_embeddings=MAX_POS,
        rms_norm_eps=EPS, rope_parameters=dict(rope_type="default", rope_theta=THETA), tie_word_embeddings=True,
        hidden_act="silu", attention_bias=False, attention_dropout=0.0, use_sliding_window=False,
        bos_token_id=None, eos_token_id=encode.stop, pad_token_id=encode.end, dtype="bfloat16",
        architectures=["Qwen3ForCausalLM"])
    write(out / "config.json", config.to_json_string(use_diff=False))
    write(out / "generation_config.json", pretty(dict(
        do_sample=True, temperature=0.3, top_k=40, top_p=0.8,
        eos_token_id=[encode.stop, encode.end], pad_token_id=encode.end)))
    special = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
    write(out / "tokenizer_config.json", pretty(dict(
        tokenizer_class="PreTrainedTokenizerFast", model_max_length=MAX_POS, clean_up_tokenization_spaces=False,
        add_bos_token=False, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"], chat_template=TEMPLATE,
        added_tokens_decoder={str(encode.tok.token_to_id(t)): dict(content=t, **special) for t in SPECIALS})))
    write(out / "tokenizer.json", (work / "tokenizer.json").read_bytes())
    tensors = {n: p.detach().to(torch.bfloat16).contiguous() for n, p in weights.items()}
    blob = save(tensors, metadata={"format": "pt"})
    assert len(blob) <= 8_000_000, len(blob)
    write(out / "model.safetensors", blob)

    tok, model = load_exported(out)
    # the training model and transformers' must be the same function
    ours = build_model()
    ours.load_state_dict({n: t.float() for n, t in tensors.items()})
    rows, masks = pack(Chats(load_corpus(args), True).epoch(random.Random(SEED)), encode, 512)
    rows, masks = torch.tensor(rows[:4]), torch.tensor(masks[:4], dtype=torch.float32)
    with torch.no_grad():
        a = ours(rows[:, :-1], rows[:, 1:], masks[:, 1:]).item()
        b = losses(model, rows, masks)
    assert abs(a - b[0] / b[1]) < 1e-4, (a, b)

    cases = []
    for text in REFERENCE:
        ids = chat_ids(tok, text)
        prompt, output, logprobs, margin = list(ids), [], [], 1e9
        with torch.no_grad():
            while len(output) < 48 and (not output or output[-1] != encode.stop):
                lp = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                top = lp.topk(2)
                output.append(top.indices[0].item())
                logprobs.append(round(top.values[0].item(), 6))
                margin = min(margin, (top.values[0] - top.values[1]).item())
                ids = ids + output[-1:]
        cases.append(dict(prompt=text, prompt_ids=prompt, output_ids=output, logprobs=logprobs,
                          text=tok.decode(output), smallest_margin=round(margin, 6)))
    body = ",\n".join("    " + json.dumps(c) for c in cases)
    write(out / "reference.json", '{\n  "about": "greedy continuation by transformers, float32 arithmetic on the bfloat16 weights",\n'
                                  '  "cases": [\n' + body + "\n  ]\n}\n")
    print("exported", len(blob), "bytes;", "average" if args.ema else "last", "weights of", json.dumps(saved["run"]),
          "smallest margins", [c["smallest_margin"] for c in cases])


def load_exported(out):
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    return AutoTokenizer.from_pretrained(out), Qwen3ForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


def chat_ids(tok, text):
    return tok.encode(tok.apply_chat_template([dict(role="user", content=text)], add_generation_prompt=True, tokenize=False),
                      add_special_tokens=False)


def losses(model, rows, masks):
    """Summed loss in nats and number of learned tokens."""
    import torch
    import torch.nn.functional as F

    total = count = 0.0
    with torch.no_grad():
        for k in range(0, len(rows), 8):
            r, m = rows[k:k + 8], masks[k:k + 8, 1:].flatten()
            logits = model(r[:, :-1]).logits.flatten(0, 1)
            total += (F.cross_entropy(logits, r[:, 1:].flatten(), reduction="none") * m).sum().item()
            count += m.sum().item()
    return total, count
