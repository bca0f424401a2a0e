"""Compares `ds4` with Hugging Face transformers on the exported checkpoint: the most likely token of every position.

    python training/compare.py FOLDER MODEL.gguf [--ds4 target/release/ds4] [--dialogues FILE.jsonl.gz] [--count 50]

FOLDER is the export, MODEL.gguf its float16 conversion. transformers applies none of the activation roundings, so `ds4`
runs with `--mode plain`.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folder")
    a.add_argument("gguf")
    a.add_argument("--ds4", default=str(HERE.parent / "target/release/ds4"))
    a.add_argument("--dialogues", default=str(HERE.parent / "fixtures/eval/dialogues.jsonl.gz"))
    a.add_argument("--count", type=int, default=50)
    a = a.parse_args()
    tokenizer = Tokenizer.from_file(str(Path(a.folder) / "tokenizer.json"))
    hf = AutoModelForCausalLM.from_pretrained(a.folder, dtype=torch.float32, attn_implementation="eager").eval()
    texts = [json.loads(line)["text"] for line in gzip.open(a.dialogues, "rt")][: a.count]
    same = total = 0
    worst = 0.0
    with tempfile.TemporaryDirectory() as tmp:
        ids_file, out = Path(tmp) / "ids.json", Path(tmp) / "logits.f32"
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            ids_file.write_text(json.dumps(ids))
            subprocess.run([a.ds4, "logits", "-m", a.gguf, "--ids", ids_file, "--out", out, "--mode", "plain"], check=True, stderr=subprocess.DEVNULL)
            ours = np.fromfile(out, np.float32).reshape(len(ids), -1)
            with torch.no_grad():
                theirs = hf(torch.tensor([ids]), use_cache=False).logits[0].numpy()
            same += int((ours.argmax(1) == theirs.argmax(1)).sum())
            total += len(ids)
            worst = max(worst, float(np.abs(ours - theirs).max()))
    print(f"{len(texts)} dialogues, {total} positions: top-1 equal on {same} ({100 * same / total:.3f}%), largest logit difference {worst:.2e}")
    sys.exit(same < 0.999 * total)


if __name__ == "__main__":
    main()
