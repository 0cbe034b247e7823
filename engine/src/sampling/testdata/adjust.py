"""Writes adjust.json: rows of logits before and after transformers' processors and vLLM's penalties. Run once, with both installed."""

import json
import pathlib

import torch
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)
from vllm.model_executor.layers.utils import apply_penalties

VOCAB = 24


def case(seed, repetition=1.0, frequency=0.0, presence=0.0, bias=None, min_tokens=0, stop=()):
    torch.manual_seed(seed)
    logits = torch.randn(1, VOCAB) * 6
    prompt = torch.randint(0, VOCAB, (1, 9))
    output = torch.randint(0, VOCAB, (1, 6))
    tokens = torch.cat([prompt, output], dim=1)
    after = logits.clone()
    if min_tokens:
        after = MinNewTokensLengthLogitsProcessor(prompt.shape[1], min_tokens, list(stop))(tokens, after)
    if bias:
        after = SequenceBiasLogitsProcessor([[[token], value] for token, value in bias])(tokens, after)
    if frequency == 0.0 and presence == 0.0:
        after = RepetitionPenaltyLogitsProcessor(repetition)(tokens, after)
    else:
        column = lambda value: torch.tensor([value])
        after = apply_penalties(after, prompt, output, column(presence), column(frequency), column(repetition))
    finite = [None if value == float("-inf") else value for value in after[0].tolist()]
    return {
        "logits": logits[0].tolist(), "prompt": prompt[0].tolist(), "output": output[0].tolist(), "repetition_penalty": repetition,
        "frequency_penalty": frequency, "presence_penalty": presence, "logit_bias": bias or [], "min_tokens": min_tokens,
        "stop_token_ids": list(stop), "expected": finite,
    }


cases = [
    case(1, repetition=1.3),
    case(2, repetition=0.7),
    case(3, frequency=0.8),
    case(4, presence=-1.5),
    case(5, repetition=1.7, frequency=-0.4, presence=1.2),
    case(6, bias=[[3, 5.5], [17, -100.0]]),
    case(7, repetition=1.2, bias=[[0, 2.25], [9, -3.0]], min_tokens=7, stop=(4, 11)),
    case(8, min_tokens=6, stop=(4, 11)),
]
pathlib.Path(__file__).with_name("adjust.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
