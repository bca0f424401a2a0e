"""DeepSeek V4 for training, in PyTorch: the forward pass of the whole family (docs/model.md) over full sequences.

Parameters carry the names of the official checkpoint, so that an export is a walk over `state_dict`. Everything that
treats tokens one by one works on `[N, ...]` with N = batch * length; only the attention core sees `[batch, length]`.
Activations are bfloat16 inside matrix products and float32 in the hyper-connection streams. The activation roundings
of the released model (E4M3 key-value rows, Hadamard and E2M1 indexer rows) are applied with a straight-through gradient.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

from sinkhorn import sinkhorn

STREAMS = 4
EPS = 1e-6
HIDDEN = -1e9
BF16 = torch.bfloat16


@dataclass
class Config:
    """Sizes; the names are those of the official `config.json`."""

    vocab_size: int = 3072
    hidden_size: int = 256
    num_hidden_layers: int = 6
    compress_ratios: list = field(default_factory=lambda: [0, 4, 4, 128, 4, 4, 0])
    num_hash_layers: int = 2
    num_attention_heads: int = 4
    head_dim: int = 512
    qk_rope_head_dim: int = 64
    q_lora_rank: int = 128
    o_groups: int = 2
    o_lora_rank: int = 128
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 256
    sliding_window: int = 128
    index_n_heads: int = 4
    index_head_dim: int = 128
    index_topk: int = 64
    hc_sinkhorn_iters: int = 20
    swiglu_limit: float = 10.0
    routed_scaling_factor: float = 1.5
    rope_theta: float = 10000.0
    compress_rope_theta: float = 160000.0
    yarn_factor: float = 16.0
    yarn_original: int = 65536
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    max_position_embeddings: int = 32768

    def to_json(self):
        """The official `config.json`."""
        return {
            "architectures": ["DeepseekV4ForCausalLM"],
            "model_type": "deepseek_v4",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "moe_intermediate_size": self.moe_intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": 1,
            "head_dim": self.head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "q_lora_rank": self.q_lora_rank,
            "o_groups": self.o_groups,
            "o_lora_rank": self.o_lora_rank,
            "n_routed_experts": self.n_routed_experts,
            "n_shared_experts": 1,
            "num_experts_per_tok": self.num_experts_per_tok,
            "scoring_func": "sqrtsoftplus",
            "norm_topk_prob": True,
            "routed_scaling_factor": self.routed_scaling_factor,
            "num_hash_layers": self.num_hash_layers,
            "num_nextn_predict_layers": 1,
            "compress_ratios": self.compress_ratios,
            "compress_rope_theta": self.compress_rope_theta,
            "rope_theta": self.rope_theta,
            "rope_scaling": {
                "type": "yarn",
                "factor": self.yarn_factor,
                "original_max_position_embeddings": self.yarn_original,
                "beta_fast": self.yarn_beta_fast,
                "beta_slow": self.yarn_beta_slow,
            },
            "max_position_embeddings": self.max_position_embeddings,
            "sliding_window": self.sliding_window,
            "index_n_heads": self.index_n_heads,
            "index_head_dim": self.index_head_dim,
            "index_topk": self.index_topk,
            "hc_mult": STREAMS,
            "hc_sinkhorn_iters": self.hc_sinkhorn_iters,
            "hc_eps": EPS,
            "swiglu_limit": self.swiglu_limit,
            "hidden_act": "silu",
            "rms_norm_eps": EPS,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "float16",
        }


# ---------------------------------------------------------------------------------------------- small pieces


def rms(x, weight=None):
    """RMS norm over the last dimension, float32 inside."""
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS)
    return y if weight is None else y * weight


def frequencies(c, ratio):
    """Rotary frequencies `[rope / 2]` of a layer with this compression ratio."""
    half = torch.arange(0, c.qk_rope_head_dim, 2, dtype=torch.float64) / c.qk_rope_head_dim
    if ratio == 0:
        return c.rope_theta**-half
    base = c.compress_rope_theta**-half

    def turn(n):
        return c.qk_rope_head_dim * math.log(c.yarn_original / (n * 2 * math.pi)) / (2 * math.log(c.compress_rope_theta))

    low = max(0, math.floor(turn(c.yarn_beta_fast)))
    high = min(c.qk_rope_head_dim - 1, math.ceil(turn(c.yarn_beta_slow)))
    i = torch.arange(c.qk_rope_head_dim // 2, dtype=torch.float64)
    keep = 1 - ((i - low) / max(high - low, 0.001)).clamp(0, 1)
    return base * keep + base / c.yarn_factor * (1 - keep)


def rotate(x, cos, sin):
    """Rotates adjacent pairs of the last `2 * cos.shape[-1]` components."""
    n = 2 * cos.shape[-1]
    rest, tail = x[..., :-n], x[..., -n:].unflatten(-1, (-1, 2))
    a, b = tail[..., 0], tail[..., 1]
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    return torch.cat([rest, turned], -1)


def ceil_pow2(t):
    """Smallest power of two not below `t > 0`, exact."""
    bits = t.contiguous().view(torch.int32)
    exponent = ((bits >> 23) & 255) + ((bits & 0x7FFFFF) != 0).int()
    return (exponent << 23).view(torch.float32)


def round_e4m3(x, rope):
    """E4M3 round trip of all but the last `rope` components, in blocks of 64."""
    head = x[..., :-rope].unflatten(-1, (-1, 64))
    with torch.no_grad():
        scale = ceil_pow2(head.abs().amax(-1, keepdim=True).clamp(min=1e-4) * (1 / 448))
        rounded = (head / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    head = head + (rounded - head).detach()
    return torch.cat([head.flatten(-2), x[..., -rope:]], -1)


def hadamard(n, device):
    """Orthonormal Walsh-Hadamard matrix in natural order."""
    h = torch.ones(1, 1, device=device)
    while h.shape[0] < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return h * n**-0.5


def round_e2m1(x, had):
    """Hadamard, then an E2M1 round trip in blocks of 32."""
    block = (x.float() @ had).unflatten(-1, (-1, 32))
    with torch.no_grad():
        scale = ceil_pow2(block.abs().amax(-1, keepdim=True).clamp(min=6 * 2.0**-126) * (1 / 6))
        v = (block / scale).clamp(-6, 6)
        a = v.abs()
        # steps of 0.5 below 2, of 1 below 4, of 2 above; torch.round takes ties to even codes in each range
        q = torch.where(a < 2, (a * 2).round() / 2, torch.where(a < 4, a.round(), (a / 2).round() * 2))
        rounded = torch.sign(v) * q * scale
    return (block + (rounded - block).detach()).flatten(-2)


# ---------------------------------------------------------------------------------------------- stages


def hc_mix(X, fn, scale, base):
    """Mix coefficients of a hyper-connection site: pre `[N, 4]`, post `[N, 4]`, positive matrix `[N, 4, 4]`."""
    z = X.flatten(1)
    m = (z @ fn.t()) * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + EPS)
    pre = torch.sigmoid(m[:, :4] * scale[0] + base[:4]) + EPS
    post = 2 * torch.sigmoid(m[:, 4:8] * scale[1] + base[4:8])
    raw = (m[:, 8:] * scale[2] + base[8:]).unflatten(-1, (4, 4))
    return pre, post, torch.softmax(raw, -1) + EPS


def hc_collapse(X, pre, weight):
    """Weighted sum of the streams and the sublayer's norm: `[N, D]` bfloat16."""
    return rms((pre[:, :, None] * X).sum(1), weight).to(BF16)


def hc_post(X, y, post, C):
    """Next streams from the sublayer's output and the mixed old streams."""
    mixed = (C[:, :, :, None] * X[:, :, None, :]).sum(1)
    return post[:, :, None] * y.float()[:, None, :] + mixed


def heads(q, cos, sin, n_head):
    """Normed and rotated query heads `[N, heads, head_dim]`."""
    return rotate(rms(q.unflatten(-1, (n_head, -1))), cos[:, None], sin[:, None]).to(BF16)


def key_rows(kv, weight, cos, sin):
    """Rounded key-value rows `[N, head_dim]`."""
    return round_e4m3(rotate(rms(kv, weight), cos, sin), 2 * cos.shape[-1]).to(BF16)


def pool(kv, gate, ape, first, norm):
    """Pooled and normed compressor rows `[windows, E]` from `[N, W]` values and gates.

    `first[w]` marks windows that begin a sequence: their previous half has weight zero.
    """
    r, W = ape.shape
    kv, gate = kv.float().unflatten(0, (-1, r)), gate.float().unflatten(0, (-1, r)) + ape
    if r == 4:
        E = W // 2
        before_kv, before_gate = kv[..., :E].roll(1, 0), gate[..., :E].roll(1, 0)
        before_gate = torch.where(first[:, None, None], -math.inf, before_gate)
        kv, gate = torch.cat([before_kv, kv[..., E:]], 1), torch.cat([before_gate, gate[..., E:]], 1)
    return rms((torch.softmax(gate, 1) * kv).sum(1), norm)


def compressed_rows(kv, gate, ape, first, norm, cos, sin):
    """Compressed attention rows."""
    return round_e4m3(rotate(pool(kv, gate, ape, first, norm), cos, sin), 2 * cos.shape[-1]).to(BF16)


def index_keys(kv, gate, ape, first, norm, cos, sin, had):
    """Compressed indexer rows."""
    return round_e2m1(rotate(pool(kv, gate, ape, first, norm), cos, sin), had).to(BF16)


def index_queries(q, cos, sin, had, n_head):
    """Indexer heads `[N, heads, dim]`."""
    return round_e2m1(rotate(q.float().unflatten(-1, (n_head, -1)), cos[:, None], sin[:, None]), had).to(BF16)


def index_scores(q, keys, w, visible):
    """Indexer scores `[B, T, C]`, invisible rows far below any score. q `[B, T, h, d]`, w `[B, T, h]`."""
    B, T, h, d = q.shape
    s = torch.relu(q.flatten(1, 2) @ keys.transpose(1, 2)).unflatten(1, (T, h))
    s = (s.float() * (w.float() * (d * h) ** -0.5)[..., None]).sum(2)
    return torch.where(visible, s, HIDDEN)


def window_scores(q, k, fresh):
    """Scores over own and previous block of the window's length: `[N, H, 2 * window]`, masked, and the doubled key blocks.

    q `[N, H, d]`, k `[N, d]`; `fresh[block]` marks blocks that begin a sequence.
    """
    N, H, d = q.shape
    n = fresh.shape[0]
    window = N // n
    kb = k.unflatten(0, (n, window))
    both = torch.cat([kb.roll(1, 0), kb], 1)
    s = (q.reshape(n, window * H, d) @ both.transpose(1, 2)).view(n, window, H, 2 * window)
    i = torch.arange(window, device=q.device)[:, None]
    j = torch.arange(2 * window, device=q.device)[None, :] - window
    seen = ((j <= i) & (j > i - window))[None] & ((j >= 0)[None] | ~fresh[:, None, None])
    return torch.where(seen[:, :, None], s.float() * d**-0.5, -math.inf).flatten(0, 1), both


def mix_rows(weights, both):
    """Weighted sums of window rows: `[N, H, d]` from weights `[N, H, 2 * window]`."""
    N, H, _ = weights.shape
    o = weights.reshape(both.shape[0], -1, both.shape[1]) @ both
    return o.view(N, H, -1)


def attend_window(q, k, sink, fresh):
    """Attention of a layer without compression: `[N, H, d]`."""
    s, both = window_scores(q, k, fresh)
    m = torch.maximum(s.amax(-1, keepdim=True), sink[:, None]).detach()
    e = torch.exp(s - m)
    den = e.sum(-1, keepdim=True) + torch.exp(sink[:, None] - m)
    return mix_rows((e / den).to(BF16), both)


def compressed_scores(q, rows, visible):
    """Scores over compressed rows `[B, T, H, C]`."""
    B, T, H, d = q.shape
    s = (q.flatten(1, 2) @ rows.transpose(1, 2)).unflatten(1, (T, H))
    return torch.where(visible[:, :, None], s.float() * d**-0.5, -math.inf)


def attend_both(sw, sc, sink, chosen):
    """Joint softmax over window and compressed scores with the rows outside `chosen` left out.

    Returns both weight tensors and the mass `[B, T, C]` that the heads would give each compressed row if all were
    chosen (the indexer's target).
    """
    m = torch.maximum(torch.maximum(sw.amax(-1, keepdim=True), sc.amax(-1, keepdim=True)), sink[:, None]).detach()
    ew, ec, es = torch.exp(sw - m), torch.exp(sc - m), torch.exp(sink[:, None] - m)
    rest = ew.sum(-1, keepdim=True) + es
    target = (ec / (rest + ec.sum(-1, keepdim=True))).detach().mean(2)
    ec = torch.where(chosen[:, :, None], ec, 0.0)
    den = rest + ec.sum(-1, keepdim=True)
    return (ew / den).to(BF16), (ec / den).to(BF16), target


def index_loss(scores, target, visible, weight):
    """Cross entropy of the indexer against the attention mass of compressed rows, weighted per token."""
    logp = torch.log_softmax(scores, -1)
    return (-(target * torch.where(visible, logp, 0.0)).sum(-1) * weight).sum() / weight.sum()


def select(scores, k):
    """The `k` best rows of each query as a mask."""
    if scores.shape[-1] <= k:
        return torch.ones_like(scores, dtype=torch.bool)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, torch.topk(scores, k, -1).indices, True)


def attn_out(o, cos, sin, a, b, groups):
    """Inverse rotation and the grouped low-rank output: `[N, D]`."""
    o = rotate(o.float(), cos[:, None], -sin[:, None]).to(BF16)
    o = o.flatten(1).unflatten(-1, (groups, -1))
    low = torch.einsum("ngi,goi->ngo", o, a.to(BF16).unflatten(0, (groups, -1)))
    return low.flatten(1) @ b.to(BF16).t()


def route_scores(x, gate):
    """`sqrt(softplus(logits))`, `[N, experts]`."""
    return torch.sqrt(F.softplus(x.float() @ gate.t()))


def experts(x, prob, chosen, w1, w2, w3, s1, s2, s3, limit, scale):
    """All experts of all tokens, weights of unchosen ones zero, plus the shared one."""
    w = prob * chosen
    w = w / w.sum(-1, keepdim=True).clamp(min=2.0**-14) * scale
    E, Fd, D = w1.shape
    gate = x @ torch.cat([w1.flatten(0, 1), s1], 0).to(BF16).t()
    up = x @ torch.cat([w3.flatten(0, 1), s3], 0).to(BF16).t()
    mid = F.silu(gate.float().clamp(max=limit)) * up.float().clamp(-limit, limit)
    w = torch.cat([w, torch.ones_like(w[:, :1])], 1)
    mid = (mid.unflatten(-1, (E + 1, Fd)) * w[:, :, None]).flatten(1).to(BF16)
    down = torch.cat([w2.transpose(1, 2).flatten(0, 1), s2.t()], 0)
    return mid @ down.to(BF16)


def token_loss(x, head, target, weight):
    """Weighted cross entropy sum, and the argmax of every row."""
    logits = (x @ head.to(BF16).t()).float()
    loss = F.cross_entropy(logits, target, reduction="none")
    return (loss * weight).sum(), logits.argmax(-1)


BY_TOKEN = [
    "hc_mix", "hc_collapse", "hc_post", "heads", "key_rows", "compressed_rows", "index_keys", "index_queries",
    "window_scores", "attend_window", "attn_out", "route_scores", "experts", "token_loss",
]
BY_LENGTH = ["index_scores", "compressed_scores", "attend_both", "index_loss"]


def compile_stages():
    """Replaces the stages by compiled ones; batches of all lengths hold equally many tokens, so most are traced once."""
    import torch._dynamo

    torch._dynamo.config.cache_size_limit = 64
    for name in BY_TOKEN:
        globals()[name] = torch.compile(globals()[name], dynamic=False)
    for name in BY_LENGTH:
        globals()[name] = torch.compile(globals()[name], dynamic=True)


# ---------------------------------------------------------------------------------------------- modules


def matrix(*shape, std=None):
    """A weight drawn with variance 1 / inputs."""
    return nn.Parameter(torch.randn(*shape) * (shape[-1] ** -0.5 if std is None else std))


class Weight(nn.Module):
    """Holds `weight` so that names end as in the official checkpoint."""

    def __init__(self, value):
        super().__init__()
        self.weight = value if isinstance(value, nn.Parameter) else nn.Parameter(value)


def add_site(module, name, site):
    """A hyper-connection site; its names live on the layer itself (`hc_attn_fn`)."""
    mixes = 2 * STREAMS + STREAMS * STREAMS
    module.register_parameter(name + "_fn", matrix(mixes, STREAMS * module.hidden))
    base = torch.zeros(mixes)
    base[:4] = torch.tensor([-1.5 if i != site % 4 else 0.5 for i in range(4)])
    base[4:8] = torch.tensor([-0.5 if i != site % 4 else 0.5 for i in range(4)])
    base[8:] = (torch.eye(4) * 3).flatten()
    module.register_parameter(name + "_base", nn.Parameter(base))
    module.register_parameter(name + "_scale", nn.Parameter(torch.full((3,), 0.2)))


class Compressor(nn.Module):
    """Value and gate projections of a compressor."""

    def __init__(self, c, ratio, width):
        super().__init__()
        w = width * (2 if ratio == 4 else 1)
        self.wkv, self.wgate = Weight(matrix(w, c.hidden_size)), Weight(matrix(w, c.hidden_size, std=0.2 * c.hidden_size**-0.5))
        self.ape = nn.Parameter(torch.randn(ratio, w) * 0.02)
        self.norm = Weight(torch.ones(width))

    def products(self, x):
        """Values and gates of every token."""
        return x @ self.wkv.weight.to(BF16).t(), x @ self.wgate.weight.to(BF16).t()


class Indexer(nn.Module):
    """Queries, head weights and keys of the lightning indexer."""

    def __init__(self, c):
        super().__init__()
        self.wq_b = Weight(matrix(c.index_n_heads * c.index_head_dim, c.q_lora_rank))
        self.weights_proj = Weight(matrix(c.index_n_heads, c.hidden_size))
        self.compressor = Compressor(c, 4, c.index_head_dim)


class Attention(nn.Module):
    """Weights of attention."""

    def __init__(self, c, ratio):
        super().__init__()
        self.c, self.ratio = c, ratio
        full = c.num_attention_heads * c.head_dim
        self.wq_a, self.q_norm = Weight(matrix(c.q_lora_rank, c.hidden_size)), Weight(torch.ones(c.q_lora_rank))
        self.wq_b = Weight(matrix(full, c.q_lora_rank))
        self.wkv, self.kv_norm = Weight(matrix(c.head_dim, c.hidden_size)), Weight(torch.ones(c.head_dim))
        self.attn_sink = nn.Parameter(torch.zeros(c.num_attention_heads))
        self.wo_a = Weight(matrix(c.o_groups * c.o_lora_rank, full // c.o_groups))
        self.wo_b = Weight(matrix(c.hidden_size, c.o_groups * c.o_lora_rank, std=0.5 * (c.o_groups * c.o_lora_rank) ** -0.5))
        if ratio:
            self.compressor = Compressor(c, ratio, c.head_dim)
        if ratio == 4:
            self.indexer = Indexer(c)

    def forward(self, x, rope, run):
        """x `[N, D]` -> `[N, D]`; `run` holds the batch's shape, masks and where the indexer's loss goes."""
        c = self.c
        cos, sin = rope.cos, rope.sin
        qr = rms(x @ self.wq_a.weight.to(BF16).t(), self.q_norm.weight).to(BF16)
        q = heads(qr @ self.wq_b.weight.to(BF16).t(), cos, sin, c.num_attention_heads)
        k = key_rows(x @ self.wkv.weight.to(BF16).t(), self.kv_norm.weight, cos, sin)
        if self.ratio == 0:
            o = attend_window(q, k, self.attn_sink, run.fresh)
        else:
            o = self.compressed(x, qr, q, k, rope, run)
        return attn_out(o, cos, sin, self.wo_a.weight, self.wo_b.weight, c.o_groups)

    def compressed(self, x, qr, q, k, rope, run):
        """Attention over the window and the chosen compressed rows: `[N, H, d]`."""
        c, B, T, r = self.c, run.B, run.T, self.ratio
        visible = run.visible[r]
        kv, gate = self.compressor.products(x)
        rows = compressed_rows(kv, gate, self.compressor.ape, run.first[r], self.compressor.norm.weight, *rope.rows[r])
        rows = rows.unflatten(0, (B, -1))
        sw, both = window_scores(q, k, run.fresh)
        sc = compressed_scores(q.unflatten(0, (B, T)), rows, visible)
        chosen = visible.expand(B, -1, -1)
        if r == 4:
            scores = self.scores(x.detach(), qr.detach(), rope, run)
            if run.sparse:
                chosen = chosen & select(scores.detach(), c.index_topk)
        w, wc, target = attend_both(sw.unflatten(0, (B, T)), sc, self.attn_sink, chosen)
        if r == 4:
            run.index_loss = run.index_loss + index_loss(scores, target, visible, run.index_weight)
        o = (wc.flatten(1, 2) @ rows).view(q.shape)
        return mix_rows(w.flatten(0, 1), both) + o

    def scores(self, x, qr, rope, run):
        """Indexer scores of every (query, compressed row)."""
        c, B, T, ix = self.c, run.B, run.T, self.indexer
        kv, gate = ix.compressor.products(x)
        keys = index_keys(kv, gate, ix.compressor.ape, run.first[4], ix.compressor.norm.weight, *rope.rows[4], run.had)
        qi = index_queries(qr @ ix.wq_b.weight.to(BF16).t(), rope.cos, rope.sin, run.had, c.index_n_heads)
        w = x @ ix.weights_proj.weight.to(BF16).t()
        return index_scores(qi.unflatten(0, (B, T)), keys.unflatten(0, (B, -1)), w.unflatten(0, (B, T)), run.visible[4])


class Gate(nn.Module):
    """Router: scores, and either a bias or a token table."""

    def __init__(self, c, hashed):
        super().__init__()
        self.weight = matrix(c.n_routed_experts, c.hidden_size)
        if hashed:
            g = torch.Generator().manual_seed(c.vocab_size)
            table = torch.stack([torch.randperm(c.n_routed_experts, generator=g)[: c.num_experts_per_tok] for _ in range(c.vocab_size)])
            self.register_buffer("tid2eid", table)
        else:
            self.register_buffer("bias", torch.zeros(c.n_routed_experts))


class Experts(nn.Module):
    """Routed experts, stacked: w1, w3 `[E, F, D]`, w2 `[E, D, F]`."""

    def __init__(self, c):
        super().__init__()
        E, Fd, D = c.n_routed_experts, c.moe_intermediate_size, c.hidden_size
        self.w1, self.w2, self.w3 = matrix(E, Fd, D), matrix(E, D, Fd, std=0.5 * Fd**-0.5), matrix(E, Fd, D)


class Shared(nn.Module):
    """The shared expert."""

    def __init__(self, c):
        super().__init__()
        Fd, D = c.moe_intermediate_size, c.hidden_size
        self.w1, self.w2, self.w3 = Weight(matrix(Fd, D)), Weight(matrix(D, Fd, std=0.5 * Fd**-0.5)), Weight(matrix(Fd, D))


class FeedForward(nn.Module):
    """Router, routed experts and shared expert."""

    def __init__(self, c, hashed):
        super().__init__()
        self.c = c
        self.gate, self.experts, self.shared_experts = Gate(c, hashed), Experts(c), Shared(c)

    def forward(self, x, tokens, run):
        """x `[N, D]`, tokens `[N]` -> `[N, D]`."""
        c, g = self.c, self.gate
        prob = route_scores(x, g.weight)
        with torch.no_grad():
            ids = g.tid2eid[tokens] if hasattr(g, "tid2eid") else torch.topk(prob + g.bias, c.num_experts_per_tok, -1).indices
            chosen = torch.zeros_like(prob).scatter_(1, ids, 1.0)
        if hasattr(g, "bias") and self.training:
            run.load.append((g.bias, chosen.mean(0)))
        e, s = self.experts, self.shared_experts
        return experts(x, prob, chosen, e.w1, e.w2, e.w3, s.w1.weight, s.w2.weight, s.w3.weight, c.swiglu_limit, c.routed_scaling_factor)


class Layer(nn.Module):
    """One layer: attention and feed-forward, each behind a hyper-connection site."""

    def __init__(self, c, index, ratio, hashed):
        super().__init__()
        self.hidden = c.hidden_size
        add_site(self, "hc_attn", 2 * index)
        add_site(self, "hc_ffn", 2 * index + 1)
        self.attn_norm, self.ffn_norm = Weight(torch.ones(c.hidden_size)), Weight(torch.ones(c.hidden_size))
        self.attn, self.ffn = Attention(c, ratio), FeedForward(c, hashed)
        self.ratio, self.iters = ratio, c.hc_sinkhorn_iters

    def forward(self, X, tokens, run):
        """Streams `[N, 4, D]` -> streams."""
        pre, post, C = hc_mix(X, self.hc_attn_fn, self.hc_attn_scale, self.hc_attn_base)
        y = self.attn(hc_collapse(X, pre, self.attn_norm.weight), run.rope[min(self.ratio, 1)], run)
        X = hc_post(X, y, post, sinkhorn(C, self.iters))
        pre, post, C = hc_mix(X, self.hc_ffn_fn, self.hc_ffn_scale, self.hc_ffn_base)
        y = self.ffn(hc_collapse(X, pre, self.ffn_norm.weight), tokens, run)
        return hc_post(X, y, post, sinkhorn(C, self.iters))


def add_head(module, hidden):
    """Stream collapse in front of a vocabulary projection."""
    module.hc_head_fn = matrix(STREAMS, STREAMS * hidden)
    module.hc_head_base = nn.Parameter(torch.full((STREAMS,), -1.1))
    module.hc_head_scale = nn.Parameter(torch.full((1,), 0.2))


def collapse(module, X, weight):
    """`[N, D]` bfloat16 in front of the vocabulary projection."""
    z = X.flatten(1)
    m = (z @ module.hc_head_fn.t()) * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + EPS)
    return hc_collapse(X, torch.sigmoid(m * module.hc_head_scale[0] + module.hc_head_base) + EPS, weight)


class Mtp(Layer):
    """The draft block: the state of position p with the token of p + 1 predicts the token of p + 2."""

    def __init__(self, c):
        super().__init__(c, c.num_hidden_layers, c.compress_ratios[c.num_hidden_layers], False)
        self.e_proj, self.h_proj = Weight(matrix(c.hidden_size, c.hidden_size)), Weight(matrix(c.hidden_size, c.hidden_size))
        self.enorm, self.hnorm, self.norm = (Weight(torch.ones(c.hidden_size)) for _ in range(3))
        add_head(self, c.hidden_size)

    def forward(self, X, e, tokens, run):
        """X `[N, 4, D]`, e `[N, D]` the next token's embedding -> streams."""
        e = rms(e, self.enorm.weight).to(BF16) @ self.e_proj.weight.to(BF16).t()
        h = rms(X, self.hnorm.weight).to(BF16) @ self.h_proj.weight.to(BF16).t()
        return super().forward(e.float()[:, None] + h.float(), tokens, run)


@dataclass
class Rope:
    """Angles of a layer kind: of every token, and of every compressed row by ratio."""

    cos: torch.Tensor
    sin: torch.Tensor
    rows: dict


class Run:
    """What one forward pass needs besides weights: masks, angles, and the sums it leaves."""

    def __init__(self, c, B, T, device, sparse, index_weight):
        self.B, self.T, self.sparse, self.index_weight = B, T, sparse, index_weight
        self.index_loss, self.load = 0.0, []
        self.had = hadamard(c.index_head_dim, device)
        p = torch.arange(T, device=device)
        self.fresh = (torch.arange(T // c.sliding_window, device=device) == 0).repeat(B)
        self.rope, self.first, self.visible = {}, {}, {}
        for kind, ratio in ((0, 0), (1, 4)):
            f = frequencies(c, ratio).float().to(device)
            angle = p[:, None].float() * f
            rows = {}
            for r in (4, 128):
                a = angle[::r].repeat(B, 1)
                rows[r] = (a.cos(), a.sin())
            a = angle.repeat(B, 1)
            self.rope[kind] = Rope(a.cos(), a.sin(), rows)
        for r in (4, 128):
            self.first[r] = (torch.arange(T // r, device=device) == 0).repeat(B)
            self.visible[r] = (torch.arange(T // r, device=device)[None] < ((p[:, None] + 1) // r))[None]


class Model(nn.Module):
    """The whole model."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed, self.head = Weight(matrix(c.vocab_size, c.hidden_size, std=0.5)), Weight(matrix(c.vocab_size, c.hidden_size, std=0.5 * c.hidden_size**-0.5))
        self.norm = Weight(torch.ones(c.hidden_size))
        self.layers = nn.ModuleList(Layer(c, i, c.compress_ratios[i], i < c.num_hash_layers) for i in range(c.num_hidden_layers))
        self.mtp = nn.ModuleList([Mtp(c)])
        add_head(self, c.hidden_size)

    def streams(self, tokens, run):
        """tokens `[N]` -> streams after the last layer `[N, 4, D]`."""
        X = self.embed.weight[tokens][:, None].expand(-1, STREAMS, -1).contiguous()
        for layer in self.layers:
            X = layer(X, tokens, run)
        return X

    def losses(self, tokens, weights, run):
        """tokens, weights `[B, T]`; weight of a token is that of predicting it.

        Returns main loss, draft loss, indexer loss, and argmax ids of main and draft rows.
        """
        B, T = tokens.shape
        flat = tokens.flatten()
        X = self.streams(flat, run)
        total = weights.sum().clamp(min=1)
        one, two = shifted(tokens, 1), shifted(tokens, 2)
        w1, w2 = shifted(weights, 1), shifted(weights, 2)
        loss, best = token_loss(collapse(self, X, self.norm.weight), self.head.weight, one, w1)
        index = run.index_loss
        m = self.mtp[0]
        Y = m(X, self.embed.weight[one], one, run)
        draft, guess = token_loss(collapse(m, Y, m.norm.weight), self.head.weight, two, w2)
        return loss / total, draft / total, index, best.view(B, T), guess.view(B, T)


def shifted(x, n):
    """x `[B, T]` moved `n` to the left, zero at the end, flat."""
    return F.pad(x[:, n:], (0, n)).flatten()
