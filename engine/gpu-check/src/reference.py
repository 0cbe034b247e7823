"""Greedy tokens of a model's folder in float32, as transformers makes them: FOLDER, the prompt's ids as JSON, number of tokens."""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from transformers import AutoModelForCausalLM

folder, prompt, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").to(torch.float32).eval()
ids = torch.tensor([prompt])
with torch.no_grad():
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
print(json.dumps({"ids": ids[0, len(prompt):].tolist()}))
