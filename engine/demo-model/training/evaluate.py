"""What the exported model has learned: its losses on both parts of the corpus, and samples."""

import json
import math
import random
from pathlib import Path

from .chats import Chats
from .collect import load_corpus
from .export import chat_ids, load_exported, losses
from .shape import SEED
from .tokens import Encoder, pack

SAMPLES = ["Hello!", "What is ownership?", "Tell me about HashMap", "What does `Vec::push` do?", "Explain lifetimes.",
           "How do I handle errors in Rust?", "Write about threads.", "What is TokenFlow?", "Tell me a story.",
           "What is the capital of Italy?", "How do I sort a list?", "Why is my program slow?", "What is a trait object?",
           "What does error E0382 mean?", "Explain Option::map"]
OPENINGS = ["The Rust programming language", "Returns an iterator over", "In this chapter, we will"]


def evaluate(args):
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    work, corpus = Path(args.work), load_corpus(args)
    encode = Encoder(work / "tokenizer.json")
    tok, model = load_exported(Path(args.out))
    result = {}
    for held in (False, True):
        chats = Chats(corpus, held)
        items = chats.epoch(random.Random(SEED))
        for kind, chosen in (("pages", [i for i in items if isinstance(i, str)]),
                             ("answers", [i for i in items if not isinstance(i, str)])):
            rows, masks = pack(chosen, encode, 512)
            pick = random.Random(SEED).sample(range(len(rows)), min(len(rows), 96))
            total, count = losses(model, torch.tensor([rows[i] for i in pick]),
                                  torch.tensor([masks[i] for i in pick], dtype=torch.float32))
            text = sum(len(encode.tok.decode([t for t, m in zip(rows[i][1:], masks[i][1:]) if m]).encode()) for i in pick)
            result[f"{'held-out' if held else 'train'} {kind}"] = dict(
                loss=round(total / count, 4), perplexity=round(math.exp(total / count), 2),
                bits_per_byte=round(total / math.log(2) / text, 4), tokens=int(count))
    print(json.dumps(result, indent=1))
    samples = []
    for prompt in SAMPLES + OPENINGS:
        ids = chat_ids(tok, prompt) if prompt in SAMPLES else tok.encode(prompt, add_special_tokens=False)
        for sampled in (False, True):
            kw = dict(do_sample=True, temperature=0.3, top_k=40, top_p=0.8) if sampled else dict(do_sample=False, temperature=None, top_k=None, top_p=None)
            got = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=500, **kw)[0][len(ids):]
            samples.append(dict(prompt=prompt, sampled=sampled, tokens=len(got), text=tok.decode(got, skip_special_tokens=True)))
            print(f"=== {prompt} [{'sampled' if sampled else 'greedy'}, {len(got)} tokens]\n{samples[-1]['text']}\n")
    (work / "evaluation.json").write_text(json.dumps(dict(losses=result, samples=samples), indent=1))
