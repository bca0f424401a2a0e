"""Writes a checkpoint as a Hugging Face folder with the official tensor names (docs: gguf section 9 of the format)."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

SHARD = 15 << 20
KEPT = ("norm", "_base", "_scale", "attn_sink", "bias", "ape", "_fn")


def official(model):
    """Yields (name, tensor) as the official checkpoint spells and splits them."""
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        if ".experts." in name:
            stem, matrix = name.rsplit(".", 1)
            for e, expert in enumerate(value):
                yield f"{stem}.{e}.{matrix}.weight", expert.to(torch.float16)
        elif name.endswith("tid2eid"):
            yield name, value.to(torch.int64)
        elif value.dim() < 2 or name.endswith(KEPT):
            yield name, value.float()
        else:
            yield name, value.to(torch.float16)


def export(model, folder, tokenizer):
    """Writes shards, index, `config.json` and `tokenizer.json`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards, size = [{}], 0
    for name, tensor in official(model):
        if not torch.isfinite(tensor.float()).all():
            raise SystemExit(f"export: {name} holds a value that float16 cannot")
        n = tensor.numel() * tensor.element_size()
        if size + n > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.contiguous().clone()
        size += n
    index = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index.update({name: file for name in shard})
    total = sum(t.numel() * t.element_size() for s in shards for t in s.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    )
    (folder / "config.json").write_text(json.dumps(model.c.to_json(), indent=1) + "\n")
    shutil.copy(tokenizer, folder / "tokenizer.json")
