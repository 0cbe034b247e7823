"""Training: an hour of wall time, Muon for the matrices and AdamW for the rest."""

import json
import os
import random
import time
from pathlib import Path

from .chats import Chats
from .collect import load_corpus
from .model import build_model
from .shape import MAX_POS, SEED
from .tokens import Encoder, pack

def muon_step(params, state, lr, momentum=0.95, decay=0.01):
    """Muon: momentum, orthogonalised by five Newton-Schulz iterations, all matrices of a shape at once."""
    import torch

    shapes = {}
    for p in params:
        buf = state.setdefault(p, torch.zeros_like(p))
        buf.lerp_(p.grad, 1 - momentum)
        g = p.grad.lerp(buf, momentum)
        x = g.T if g.shape[0] > g.shape[1] else g
        shapes.setdefault(x.shape, []).append((p, x))
    for group in shapes.values():
        x = torch.stack([x / (x.norm() + 1e-7) for _, x in group]).bfloat16()
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315) @ x
        for (p, g), y in zip(group, x.float()):
            y = y.T if p.shape[0] > p.shape[1] else y
            p.mul_(1 - lr * decay).add_(y, alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def train(args):
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    work = Path(args.work)
    if args.pid_file:
        Path(args.pid_file).write_text(str(os.getpid()))
    corpus, encode = load_corpus(args), Encoder(work / "tokenizer.json")
    chats, held = Chats(corpus, False), Chats(corpus, True)
    model = build_model()
    print("parameters", sum(p.numel() for p in model.parameters()))
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    adam = torch.optim.AdamW([
        dict(params=[p for p in others if p.dim() == 2], base=4e-3, weight_decay=0.0),
        dict(params=[p for p in others if p.dim() == 1], base=3e-3, weight_decay=0.0)], betas=(0.9, 0.97), eps=1e-10)
    muon_lr, muon_state = 0.02, {}
    ema = {n: p.detach().clone() for n, p in model.named_parameters()}
    run = dict(step=0, tokens=0, learned=0, seconds=0.0, epoch=0, loss=None)
    if args.resume and (work / "checkpoint.pt").exists():
        saved = torch.load(work / "checkpoint.pt")
        model.load_state_dict(saved["model"])
        ema, run = saved["ema"], saved["run"]
        if saved.get("adam"):
            adam.load_state_dict(saved["adam"])
            muon_state = dict(zip(matrices, saved["muon"]))
    forward = torch.compile(model, dynamic=False) if args.compile else model

    def batches(length, rows_per_batch):
        rng = random.Random(f"{SEED} {run['epoch']} {run['step']}")
        rows, masks = pack(chats.epoch(rng, run["seconds"] / budget > 0.6), encode, length)
        order = list(range(len(rows)))
        rng.shuffle(order)
        for k in range(0, len(order) - rows_per_batch + 1, rows_per_batch):
            pick = order[k:k + rows_per_batch]
            yield torch.tensor([rows[i] for i in pick]), torch.tensor([masks[i] for i in pick], dtype=torch.float32)

    hrows, hmasks = pack(held.epoch(random.Random(SEED)), encode, 512)
    held_batch = torch.tensor(hrows[:48]), torch.tensor(hmasks[:48], dtype=torch.float32)

    @torch.no_grad()
    def held_loss():
        live = {n: p.detach().clone() for n, p in model.named_parameters()}
        for n, p in model.named_parameters():
            p.copy_(ema[n])
        total = 0.0
        for k in range(0, 48, 16):
            r, m = held_batch[0][k:k + 16], held_batch[1][k:k + 16]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                total += model(r[:, :-1], r[:, 1:], m[:, 1:]).item() / 3
        for n, p in model.named_parameters():
            p.copy_(live[n])
        return total

    def save():
        tmp = work / "checkpoint.tmp"
        torch.save(dict(model=model.state_dict(), ema=ema, run=run, adam=adam.state_dict(),
                        muon=[muon_state.get(p) for p in matrices]), tmp)
        tmp.replace(work / "checkpoint.pt")

    # Time is counted step by step and a step counts at most fifteen seconds (a first, compiling one
    # does not count), so a run that was stopped for a while loses nothing of its schedule.
    # The last stretch reads rows of the full context, so that long conversations work.
    budget, long_share, saved_at, shown_at = args.minutes * 60, 0.93, 0.0, 0.0
    smooth, fresh = None, True
    while run["seconds"] < budget:
        long = run["seconds"] / budget >= long_share
        length, per = (MAX_POS, 2) if long else (512, 8)
        fresh = True
        for rows, mask in batches(length, per):
            share = run["seconds"] / budget
            if share >= 1 or (share >= long_share) != long:
                break
            began = time.monotonic()
            scale = min(1.0, (run["step"] + 1) / 60) * min(1.0, max(0.0, (1 - share) / 0.6))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = (model if long else forward)(rows[:, :-1], rows[:, 1:], mask[:, 1:])  # too few long steps to compile for
            loss.backward()
            with torch.no_grad():
                torch.nn.utils.clip_grad_norm_(others, 1.0)
                for group in adam.param_groups:
                    group["lr"] = group["base"] * scale
                adam.step()
                muon_step(matrices, muon_state, muon_lr * scale)
                for p in model.parameters():
                    p.grad = None
                keep = min(0.997, (run["step"] + 1) / (run["step"] + 10)) if share < 0.9 else 0.98
                for n, p in model.named_parameters():
                    ema[n].lerp_(p, 1 - keep)
            took = time.monotonic() - began
            run["seconds"] += 0 if fresh else min(took, 15.0)
            fresh = False
            run["step"] += 1
            run["tokens"] += rows.shape[0] * (rows.shape[1] - 1)
            run["learned"] += int(mask[:, 1:].sum())
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            run["loss"] = smooth
            if run["seconds"] - shown_at > 20:
                shown_at = run["seconds"]
                print(f"{time.strftime('%H:%M:%S')} step {run['step']} epoch {run['epoch']} at {share:.3f} loss {smooth:.4f} "
                      f"lr {scale:.3f} {length * per / max(took, 1e-9):.0f} tok/s total {run['tokens'] / 1e6:.2f}M", flush=True)
            if run["seconds"] - saved_at > 120:
                saved_at = run["seconds"]
                save()
                print(f"   held-out loss {held_loss():.4f}", flush=True)
        else:
            run["epoch"] += 1
            print("   epoch done", run["epoch"], flush=True)
    save()
    print(f"   held-out loss {held_loss():.4f}  finished: {json.dumps(run)}", flush=True)
