"""Trains the miniature and exports it.

    python training/train.py --out FOLDER [--steps N] [--seed N] [--tokens N] [--workers N]

One step sees `--tokens` tokens, in rows of equal length. The schedule depends on the step alone, so a run is repeated by
repeating the command. `FOLDER/log.jsonl` holds the losses.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

import data
import model as dsv4
from export import export
from optim import Optimizer

HERE = Path(__file__).parent
VALIDATION_SEED = 7_000_001


def rate(step, steps):
    """Learning-rate factor: warm-up, plateau, straight to zero."""
    done = step / steps
    return min(1, (step + 1) / 100) * min(1, max(0.0, (1 - done) / 0.5) * 1.0)


def losses(model, ids, weights, sparse, device):
    """Runs one batch; returns the model's tuple and the run."""
    ids = torch.from_numpy(ids).to(device, non_blocking=True)
    weights = torch.from_numpy(weights).to(device, non_blocking=True)
    run = dsv4.Run(model.c, *ids.shape, device, sparse, weights.clamp(min=0.02))
    return model.losses(ids, weights, run), run, ids


def exact_turns(ids, weights, best):
    """Share of assistant turns whose every token is the greedy one."""
    inside, right = weights[:, 1:] >= 0.99, best[:, :-1] == ids[:, 1:]
    good = total = 0
    for row_in, row_right in zip(inside, right):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row_in.astype(np.int8), [0]])))
        for a, b in zip(edges[::2], edges[1::2]):
            total += 1
            good += bool(row_right[a:b].all())
    return good / max(total, 1)


@torch.no_grad()
def validate(model, encoder, tokens, device):
    """Figures on documents that no training step sees."""
    model.eval()
    out = {}
    for name, length, retrieval in (("chat", 512, False), ("chat-4k", 4096, False), ("retrieval-1k", 1024, True), ("retrieval-4k", 4096, True), ("retrieval-16k", 16384, True)):
        ids, weights = data.batch(encoder, VALIDATION_SEED, 0, length, retrieval, tokens)
        (main, draft, _, best, guess), _, _ = losses(model, ids, weights, True, device)
        best, guess = best.cpu().numpy(), guess.cpu().numpy()
        inside = weights[:, 1:] >= 0.99
        out[name] = dict(
            loss=main.item(),
            token=float((best[:, :-1] == ids[:, 1:])[inside].mean()),
            turn=exact_turns(ids, weights, best),
            draft=float((guess[:, :-2] == best[:, 1:-1])[inside[:, 1:]].mean()),
        )
    model.train()
    return out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", required=True)
    a.add_argument("--tokenizer", default=str(HERE / "tokenizer.json"))
    a.add_argument("--steps", type=int, default=5700)
    a.add_argument("--tokens", type=int, default=65536)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--ratios", default="0,4,4,128,4,4", help="compression ratio of each main layer")
    a.add_argument("--muon-lr", type=float, default=0.02)
    a.add_argument("--adam-lr", type=float, default=3e-3)
    a.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    a.add_argument("--no-compile", action="store_true")
    a = a.parse_args()

    begin = time.time()
    torch.manual_seed(a.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = data.Encoder(a.tokenizer)
    ratios = [int(r) for r in a.ratios.split(",")]
    c = dsv4.Config(
        vocab_size=encoder.tokenizer.get_vocab_size(), num_hidden_layers=len(ratios), compress_ratios=[*ratios, 0]
    )
    model = dsv4.Model(c).to(device)
    if device == "cuda" and not a.no_compile:
        dsv4.compile_stages()
    optimizer = Optimizer(model, a.muon_lr, a.adam_lr)
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    log = open(out / "log.jsonl", "w")
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, vocabulary {c.vocab_size}, {a.steps} steps", flush=True)
    waited = 0.0
    mark, mark_step = time.time(), 0
    source = data.stream(a.tokenizer, a.seed, a.steps, a.tokens, a.workers)
    while True:
        t = time.time()
        item = next(source, None)
        waited += time.time() - t
        if item is None:
            break
        step, ids, weights = item
        (main_loss, draft, index, _, _), run, _ = losses(model, ids, weights, step > 0.25 * a.steps, device)
        (main_loss + 0.3 * draft + index).backward()
        optimizer.step(rate(step, a.steps))
        with torch.no_grad():
            for bias, load in run.load:
                bias.add_(torch.sign(load.mean() - load), alpha=1e-3)
        if step % 50 == 0 or ids.shape[1] > 8192:
            row = dict(step=step, length=ids.shape[1], loss=round(main_loss.item(), 4), draft=round(draft.item(), 4),
                       index=round(float(index), 4), seconds=round(time.time() - begin, 1), waited=round(waited, 1))
            print(json.dumps(row), file=log, flush=True)
            if step % 50 == 0:
                now = time.time()
                speed = (step - mark_step) * a.tokens / max(now - mark, 1e-9) / 1e3
                mark, mark_step = now, step
                print(json.dumps(row), f"{speed:.0f}k tokens/s", flush=True)
        if step and step % 3500 == 0:
            print(json.dumps(validate(model, encoder, a.tokens, device)), flush=True)
            export(model, out / "model", a.tokenizer)
    figures = validate(model, encoder, a.tokens, device)
    print(json.dumps(figures), flush=True)
    (out / "validation.json").write_text(json.dumps(figures, indent=1) + "\n")
    export(model, out / "model", a.tokenizer)
    print(f"done in {time.time() - begin:.0f} s, {waited:.0f} s waiting for data", flush=True)


if __name__ == "__main__":
    main()
