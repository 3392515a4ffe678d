"""The decoder of the bench in PyTorch: sorted loop over experts, scaled_dot_product_attention.

A second statement of the model, written for speed: queries, keys and values are one product, so are
the two matrices of an expert that read the same rows, attention and AdamW are the library's fused
ones. With `compiled`, all but the loop over experts, whose sizes depend on the data, goes through
torch.compile. PyTorch is imported when a contestant is prepared.
"""

import numpy as np

from moe_np.base.machine import cores
from moe_np.experiments.model_speed.decoder_contestants import Prepared
from moe_np.experiments.model_speed.workload import (
    BALANCE,
    CLIP,
    PROMPT,
    UPDATE,
    K,
    Workload,
    config_of,
    params_of,
    text_of,
)


def eager(w: Workload) -> Prepared:
    """The model operation by operation."""
    return _prepare(w, compiled=False)


def compiled(w: Workload) -> Prepared:
    """The model with torch.compile; raises where there is no compiler for C++."""
    return _prepare(w, compiled=True)


class _Model:
    """The parameters as leaves, and the pass; `kv` holds keys and values in generation."""

    def __init__(self, w, compiled):
        import torch

        torch.set_num_threads(cores())
        self.config = config_of(w)
        tree = params_of(w)
        self.embed = torch.tensor(tree["embed"]["w"], requires_grad=True)
        self.norm = torch.tensor(tree["norm"]["g"], requires_grad=True)
        self.layers = [_layer(layer) for layer in tree["layers"]]
        self.attention = torch.compile(_attention, dynamic=True) if compiled else _attention
        self.normed = torch.compile(_rms) if compiled else _rms

    def leaves(self):
        leaves = [self.embed, self.norm]
        for layer in self.layers:
            leaves += [layer[name] for name in ("norm1", "qkv", "wo", "norm2", "router")]
            leaves += [*layer["w13"], *layer["w2"]]
        return leaves

    def hidden(self, ids, kv=None, first=0):
        """-> x after the last norm, and the sum of the load-balancing losses."""
        import torch

        x = torch.nn.functional.embedding(ids, self.embed)
        T = ids.shape[1]
        angles = _angles(self.config, first, T)
        balance = 0.0
        for i, layer in enumerate(self.layers):
            kept = None if kv is None else kv[i]
            x = x + self.attention(layer, x, angles, self.config, kept, first)
            h = self.normed(x, layer["norm2"], self.config.eps).flatten(0, 1)
            m, loss = _experts(layer, h, self.config.experts)
            x = x + m.view(x.shape)
            balance = balance + loss
        return self.normed(x, self.norm, self.config.eps), balance


def _layer(tree):
    import torch

    def leaf(a):
        return torch.tensor(np.ascontiguousarray(a), requires_grad=True)

    attention, experts = tree["attention"], tree["experts"]
    return {
        "norm1": leaf(tree["norm1"]["g"]),
        "qkv": leaf(np.concatenate([attention[name] for name in ("wq", "wk", "wv")], axis=1)),
        "wo": leaf(attention["wo"]),
        "norm2": leaf(tree["norm2"]["g"]),
        "router": leaf(tree["router"]["w"]),
        "w13": [leaf(np.concatenate(p, 1)) for p in zip(experts["w1"], experts["w3"], strict=True)],
        "w2": [leaf(p) for p in experts["w2"]],
    }


def _angles(config, first, T):
    import torch

    d = config.d_head
    exponent = torch.arange(d // 2, dtype=torch.float64) * (-2 / d)
    angle = torch.arange(first, first + T, dtype=torch.float64)[:, None] * config.theta**exponent
    return torch.cos(angle).float(), torch.sin(angle).float()


def _rms(x, g, eps):
    import torch

    return torch.nn.functional.rms_norm(x, g.shape, g, eps)


def _turned(x, angles):
    """x (B, H, T, d)."""
    import torch

    cos, sin = angles
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _attention(layer, x, angles, config, kept, first):
    import torch

    B, T, _ = x.shape
    Hq, Hk, d = config.heads, config.kv_heads, config.d_head
    y = _rms(x, layer["norm1"], config.eps) @ layer["qkv"]
    y = y.view(B, T, Hq + 2 * Hk, d).transpose(1, 2)
    q, k, v = y.split([Hq, Hk, Hk], dim=1)
    q, k = _turned(q, angles), _turned(k, angles)
    if kept is not None:
        keys, values = kept
        keys[:, :, first : first + T] = k
        values[:, :, first : first + T] = v
        k, v = keys[:, :, : first + T], values[:, :, : first + T]
    attend = torch.nn.functional.scaled_dot_product_attention
    out = attend(q, k, v, is_causal=T > 1, enable_gqa=Hq != Hk)
    return out.transpose(1, 2).reshape(B, T, Hq * d) @ layer["wo"]


def _experts(layer, h, E):
    """h (N, D) -> the weighted sum of the experts, the load-balancing loss of Switch."""
    import torch
    from torch.nn.functional import silu

    logits = h @ layer["router"]
    largest, chosen = logits.topk(K, dim=1)
    weight = largest.softmax(dim=1).flatten()
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=E)
    token = order // K
    ys = []
    for m, rows in enumerate(h[token].split(counts.tolist())):
        if len(rows):
            a, b = (rows @ layer["w13"][m]).chunk(2, dim=1)
            ys.append((silu(a) * b) @ layer["w2"][m])
    y = torch.cat(ys) * weight[order, None]
    share = counts / (len(h) * K)
    balance = E * (share * logits.softmax(dim=1).mean(dim=0)).sum()
    return torch.zeros_like(h).index_add(0, token, y), balance


def _prepare(w, compiled):
    import torch

    model = _Model(w, compiled)
    ids, targets = (torch.tensor(a) for a in text_of(w))
    if w.what == "train":
        step = _training(model, ids, targets.flatten())
        return step, np.array(step())
    call = (_prefill if w.what == "prefill" else _generate)(model, ids, w.length)
    result = call()
    return call, result[0, -1] if w.what == "prefill" else result[:, 0]


def _training(model, ids, targets):
    import torch

    leaves = model.leaves()
    rates = {**UPDATE, "betas": (0.9, 0.999)}
    optimiser = torch.optim.AdamW(leaves, fused=True, **rates)

    def step():
        optimiser.zero_grad(set_to_none=True)
        x, balance = model.hidden(ids)
        loss = torch.nn.functional.cross_entropy(x.flatten(0, 1) @ model.embed.T, targets)
        (loss + BALANCE * balance).backward()
        torch.nn.utils.clip_grad_norm_(leaves, CLIP)
        optimiser.step()
        return float(loss.detach())

    return step


def _prefill(model, ids, _):
    import torch

    def prefill():
        with torch.inference_mode():
            return (model.hidden(ids)[0] @ model.embed.T).numpy()

    return prefill


def _generate(model, ids, length):
    import torch

    c = model.config
    shape = (len(ids), c.kv_heads, PROMPT + length, c.d_head)

    def generate():
        with torch.inference_mode():
            kv = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(c.layers)]
            new = ids
            tokens = []
            for t in range(length):
                x, _ = model.hidden(new, kv, PROMPT + t - 1 if t else 0)
                new = (x[:, -1] @ model.embed.T).argmax(dim=1, keepdim=True)
                tokens.append(new)
            return torch.cat(tokens, dim=1).numpy()

    return generate
