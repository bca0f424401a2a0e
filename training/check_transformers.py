"""Compares the training model with Hugging Face transformers on the same exported weights.

    python training/check_transformers.py [FOLDER]

Without a folder a random model is exported first. Roundings are switched off on our side, because transformers has none.
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import model as ours
from export import export


def without_rounding():
    ours.round_e4m3 = lambda x, rope: x
    ours.round_e2m1 = lambda x, had: x.float()
    ours.BF16 = torch.float32


def load(folder):
    """The training model with the weights of an exported folder."""
    import json

    from safetensors.torch import load_file

    config = json.loads((Path(folder) / "config.json").read_text())
    names = {f for f in ours.Config.__dataclass_fields__ if f in config}
    c = ours.Config(**{n: config[n] for n in names})
    m = ours.Model(c)
    state = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        state.update(load_file(file))
    for name in list(m.state_dict()):
        if ".experts." in name:
            stem, matrix = name.rsplit(".", 1)
            state[name] = torch.stack([state.pop(f"{stem}.{e}.{matrix}.weight") for e in range(c.n_routed_experts)])
    m.load_state_dict({k: v if v.dtype == torch.int64 else v.float() for k, v in state.items()})
    return m.eval()


def main():
    torch.manual_seed(1)
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    if folder is None:
        folder = tempfile.mkdtemp()
        c = ours.Config(vocab_size=500)
        m = ours.Model(c)
        for p in m.parameters():  # every constant initial value becomes visible
            p.data.add_(torch.randn_like(p) * 0.1 * p.std().nan_to_num(0.5).clamp(min=0.1))
        for n, b in m.named_buffers():
            if n.endswith("bias"):
                b.normal_(0, 0.1)
        (Path(folder) / "t.json").write_text("{}")
        export(m, folder, Path(folder) / "t.json")
    without_rounding()
    m = load(folder)
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    hf.eval()
    T = 512
    tokens = torch.randint(3, m.c.vocab_size, (1, T))
    with torch.no_grad():
        run = ours.Run(m.c, 1, T, "cpu", True, torch.ones(1, T))
        X = m.streams(tokens.flatten(), run)
        logits = ours.collapse(m, X, m.norm.weight) @ m.head.weight.t()
        theirs = hf(tokens, use_cache=False).logits[0]
    error = (logits - theirs).abs().max().item()
    print(f"largest difference {error:.2e} of logits up to {theirs.abs().max():.2f}, over {T} positions")
    sys.exit(error > 2e-3)


if __name__ == "__main__":
    main()
