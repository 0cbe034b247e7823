"""What every step agrees on: the seed, the model's shape, its special tokens."""

from pathlib import Path

HERE = Path(__file__).resolve().parent.parent  # where the model lies and is written to

SEED = 1317

# Model shape. 3,935,616 parameters: 7.88 MB in bfloat16.
VOCAB = 3840
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, MLP = 256, 5, 4, 2, 64, 512
THETA, EPS, MAX_POS = 10000.0, 1e-6, 2048
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # the last three ids
