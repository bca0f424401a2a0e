"""Sinkhorn normalisation of many 4x4 matrices as one Triton kernel, with its gradient.

Plain PyTorch would launch 39 tiny kernels forward and more than a hundred backward at each of the two sites of a layer.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # the plain version below is enough for a check on a CPU
    triton = None

EPS = 1e-6


def plain(C, iters):
    """The definition: columns once, then rows and columns `iters - 1` times. C `[N, 4, 4]`, positive."""
    C = C / (C.sum(1, keepdim=True) + EPS)
    for _ in range(iters - 1):
        C = C / (C.sum(2, keepdim=True) + EPS)
        C = C / (C.sum(1, keepdim=True) + EPS)
    return C


if triton is not None:

    @triton.jit
    def _tile(n, BLOCK: tl.constexpr):
        row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        a, b = tl.arange(0, 4), tl.arange(0, 4)
        at = row[:, None, None] * 16 + a[None, :, None] * 4 + b[None, None, :]
        return row, at, (row < n)[:, None, None]

    @triton.jit
    def _forward(c_ptr, out_ptr, sums_ptr, n, iters: tl.constexpr, eps: tl.constexpr, BLOCK: tl.constexpr):
        row, at, ok = _tile(n, BLOCK)
        j = tl.arange(0, 4)
        keep = (row < n)[:, None]
        C = tl.load(c_ptr + at, mask=ok, other=1.0)
        s = tl.sum(C, 1) + eps
        tl.store(sums_ptr + row[:, None] * 4 + j[None, :], s, mask=keep)
        C = C / s[:, None, :]
        for i in range(1, iters):
            s = tl.sum(C, 2) + eps
            tl.store(sums_ptr + (2 * i - 1) * n * 4 + row[:, None] * 4 + j[None, :], s, mask=keep)
            C = C / s[:, :, None]
            s = tl.sum(C, 1) + eps
            tl.store(sums_ptr + 2 * i * n * 4 + row[:, None] * 4 + j[None, :], s, mask=keep)
            C = C / s[:, None, :]
        tl.store(out_ptr + at, C, mask=ok)

    @triton.jit
    def _backward(out_ptr, grad_ptr, sums_ptr, dc_ptr, n, iters: tl.constexpr, BLOCK: tl.constexpr):
        # y = c / s gives dc = (dy - sum(dy * y)) / s along the summed axis, and c = y * s walks back
        row, at, ok = _tile(n, BLOCK)
        j = tl.arange(0, 4)
        keep = (row < n)[:, None]
        y = tl.load(out_ptr + at, mask=ok, other=0.0)
        d = tl.load(grad_ptr + at, mask=ok, other=0.0)
        for k in range(1, iters):
            i = iters - k
            s = tl.load(sums_ptr + 2 * i * n * 4 + row[:, None] * 4 + j[None, :], mask=keep, other=1.0)[:, None, :]
            d = (d - tl.sum(d * y, 1)[:, None, :]) / s
            y = y * s
            s = tl.load(sums_ptr + (2 * i - 1) * n * 4 + row[:, None] * 4 + j[None, :], mask=keep, other=1.0)[:, :, None]
            d = (d - tl.sum(d * y, 2)[:, :, None]) / s
            y = y * s
        s = tl.load(sums_ptr + row[:, None] * 4 + j[None, :], mask=keep, other=1.0)[:, None, :]
        d = (d - tl.sum(d * y, 1)[:, None, :]) / s
        tl.store(dc_ptr + at, d, mask=ok)

    class _Sinkhorn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, C, iters):
            C = C.contiguous()
            n = C.shape[0]
            out, sums = torch.empty_like(C), C.new_empty(2 * iters - 1, n, 4)
            _forward[(triton.cdiv(n, 64),)](C, out, sums, n, iters, EPS, 64)
            ctx.save_for_backward(out, sums)
            ctx.iters = iters
            return out

        @staticmethod
        def backward(ctx, grad):
            out, sums = ctx.saved_tensors
            dc = torch.empty_like(out)
            n = out.shape[0]
            _backward[(triton.cdiv(n, 64),)](out, grad.contiguous(), sums, dc, n, ctx.iters, 64)
            return dc, None


def sinkhorn(C, iters):
    """Doubly stochastic matrices `[N, 4, 4]` from positive ones."""
    return _Sinkhorn.apply(C, iters) if C.is_cuda else plain(C, iters)
