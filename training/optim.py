"""Muon for the matrices inside layers, Adam for everything else.

Muon (Jordan et al., 2024) orthogonalises the momentum of a matrix; matrices of one shape are done as one batch.
"""

import torch


def orthogonalize(G, steps=5):
    """Newton-Schulz iteration towards the nearest orthogonal matrices of `G [k, m, n]`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.bfloat16()
    tall = X.shape[-2] > X.shape[-1]
    if tall:
        X = X.mT
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return (X.mT if tall else X).float()


def is_matrix(name, p):
    """Whether Muon takes this parameter."""
    inside = name.startswith(("layers.", "mtp."))
    return inside and p.dim() >= 2 and not name.endswith(("ape", "_fn", "gate.weight", "weights_proj.weight")) and "norm" not in name


class Optimizer:
    """Both parts; `step(scale)` multiplies every learning rate by `scale`."""

    def __init__(self, model, muon_lr=0.02, adam_lr=3e-3, decay=0.02):
        self.muon_lr, self.decay = muon_lr, decay
        self.groups, rest = {}, []
        for name, p in model.named_parameters():
            if is_matrix(name, p):
                # a grouped output projection is one matrix per group
                view = (model.c.o_groups, -1, p.shape[-1]) if name.endswith("wo_a.weight") else (-1, *p.shape[-2:])
                shape = p.view(view).shape[1:]
                self.groups.setdefault(tuple(shape), []).append((p, view, torch.zeros_like(p)))
            else:
                rest.append((name, p))
        embed = [p for n, p in rest if n.startswith("embed")]
        other = [p for n, p in rest if not n.startswith("embed")]
        self.adam = torch.optim.Adam(
            [dict(params=embed, lr=adam_lr, base=adam_lr), dict(params=other, lr=adam_lr * 0.6, base=adam_lr * 0.6)],
            betas=(0.9, 0.95), eps=1e-10, fused=embed[0].is_cuda,
        )

    @torch.no_grad()
    def step(self, scale, momentum=0.95):
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * scale
        self.adam.step()
        for shape, members in self.groups.items():
            grads, buffers = [p.grad for p, _, _ in members], [m for _, _, m in members]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            ahead = torch._foreach_lerp(grads, buffers, momentum)
            G = torch.cat([g.view(view) for g, (_, view, _) in zip(ahead, members)])
            lr = self.muon_lr * scale * max(1, shape[0] / shape[1]) ** 0.5
            U = orthogonalize(G) * lr
            at = 0
            params = [p for p, _, _ in members]
            torch._foreach_mul_(params, 1 - self.decay * self.muon_lr * scale)
            updates = []
            for p, view, _ in members:
                n = p.view(view).shape[0]
                updates.append(U[at : at + n].view(p.shape))
                at += n
            torch._foreach_sub_(params, updates)
        for members in self.groups.values():
            for p, _, _ in members:
                p.grad = None
        self.adam.zero_grad(set_to_none=True)
