#!/usr/bin/env python3
"""Train TokenFlow's demo model: a small Qwen3 that has read Rust's own documentation.

Usage (needs torch, transformers, tokenizers, safetensors):

    apt-get install rust-web-src                     # the text: MIT OR Apache-2.0
    python train.py all --work target/demo-model     # every step below, one after another

or one step at a time:

    python train.py collect    --work DIR [--source /usr/src/rustc-1.96.0]
    python train.py tokenizer  --work DIR
    python train.py train      --work DIR [--minutes 50] [--threads 2] [--resume]
    python train.py export     --work DIR [--out engine/demo-model]
    python train.py evaluate   --work DIR [--out engine/demo-model]

collect    reads doc comments and books under --source, cleans them to plain text and writes
           corpus.json: documents (whole pages) and question/answer seeds, each marked
           "held" (never trained on; chosen by a hash of the source file's name) or not.
tokenizer  trains a byte-level BPE (Qwen2's pre-tokenizer) on the trained part of the corpus.
train      packs a freshly phrased epoch of chats and pages at a time and trains until --minutes
           of wall time have passed (time spent stopped is not counted); the learning rate follows
           the share of time used, so the run ends decayed on any machine. Writes checkpoint.pt
           every two minutes.
export     writes config.json, generation_config.json, model.safetensors (bfloat16), the tokenizer
           files and reference.json to --out; each file appears atomically. --ema takes the running
           average of the weights, for a usable model from a run that is still in progress.
evaluate   measures train and held-out loss of the exported files with transformers and prints
           sample outputs (evaluation.json in --work).

Seeds are fixed; the number of steps depends on the machine, because the schedule follows time.
"""

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits leaves its core to others

from training.collect import collect
from training.evaluate import evaluate
from training.export import export
from training.fit import train
from training.shape import HERE
from training.tokens import tokenizer

STEPS = dict(collect=collect, tokenizer=tokenizer, train=train, export=export, evaluate=evaluate)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, "all"])
    parser.add_argument("--work", default="target/demo-model", help="corpus, tokenizer and checkpoints (not shipped)")
    parser.add_argument("--source", help="a Rust source tree; default: the newest /usr/src/rustc-*")
    parser.add_argument("--out", default=str(HERE), help="where export writes the model")
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ema", action="store_true")
    parser.add_argument("--pid-file")
    args = parser.parse_args()
    for step in STEPS if args.step == "all" else [args.step]:
        STEPS[step](args)


if __name__ == "__main__":
    main()
