"""A second statement of the decoder, in PyTorch with autograd: every expert on every token, every
head by itself, masks written out. It shares no code with the package.
"""

import math

import torch
import torch.nn.functional as F


def logits(leaf, ids, config):
    """leaf(path) -> tensor; ids (B, T) -> logits (B, T, V)."""
    x = leaf("embed.w")[ids]
    for i in range(config.layers):
        x = x + attention(leaf, x, config, i)
        x = x + feed_forward(leaf, rms(x, leaf(f"layers.{i}.norm2.g"), config), config, i)
    x = rms(x, leaf("norm.g"), config)
    return x @ (leaf("embed.w").T if config.tied else leaf("head.w"))


def rms(x, g, config):
    return g * x / torch.sqrt((x * x).mean(-1, keepdim=True) + config.eps)


def rotated(x, theta):
    """x (B, T, d) of one head."""
    T, d = x.shape[1:]
    out = torch.empty_like(x)
    for j in range(d // 2):
        angle = torch.arange(T, dtype=torch.float64) * theta ** (-2 * j / d)
        c, s = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
        out[..., j] = x[..., j] * c - x[..., j + d // 2] * s
        out[..., j + d // 2] = x[..., j + d // 2] * c + x[..., j] * s
    return out


def attention(leaf, x, config, i):
    path = f"layers.{i}.attention."
    h = rms(x, leaf(f"layers.{i}.norm1.g"), config)
    T = x.shape[1]
    d = config.d_head
    projected = {}
    for letter, heads in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads)):
        y = h @ leaf(path + "w" + letter)
        if config.biases:
            y = y + leaf(path + "b" + letter)
        if config.qk_norm == "whole" and letter != "v":
            y = rms(y, leaf(path + letter + "_norm.g"), config)
        parts = [y[..., j * d : (j + 1) * d] for j in range(heads)]
        if config.qk_norm == "head" and letter != "v":
            parts = [rms(part, leaf(path + letter + "_norm.g"), config) for part in parts]
        if config.clip_qkv is not None:
            parts = [torch.clamp(part, -config.clip_qkv, config.clip_qkv) for part in parts]
        projected[letter] = [rotated(p, config.theta) if letter != "v" else p for p in parts]
    group = config.heads // config.kv_heads
    outs = []
    for head in range(config.heads):
        q, k, v = (projected["q"][head], *(projected[n][head // group] for n in "kv"))
        scores = q @ k.transpose(1, 2) / math.sqrt(d)
        for t in range(T):
            for s in range(T):
                far = config.window is not None and i not in config.full_layers
                if s > t or (far and s <= t - config.window):
                    scores[:, t, s] = -math.inf
        outs.append(torch.softmax(scores, -1) @ v)
    return torch.cat(outs, -1) @ leaf(path + "wo")


def network(leaf, path, m, h, config):
    w1, w2 = leaf(path + "w1")[m], leaf(path + "w2")[m]
    if config.expert == "swiglu":
        return (F.silu(h @ w1) * (h @ leaf(path + "w3")[m])) @ w2
    act = {"relu": F.relu, "gelu": F.gelu}[config.expert]
    return act(h @ w1 + leaf(path + "b1")[m]) @ w2 + leaf(path + "b2")[m]


def feed_forward(leaf, h, config, i):
    path = f"layers.{i}."
    if config.experts == 1 or i in config.dense_layers:
        return network(leaf, path + "experts.", 0, h, config)
    p = torch.softmax(h @ leaf(path + "router.w"), -1)
    kept = p * (p >= p.topk(config.options["k"], -1).values[..., -1:])
    if config.options["renormalise"]:
        kept = kept / kept.sum(-1, keepdim=True)
    out = sum(
        kept[..., m : m + 1] * network(leaf, path + "experts.", m, h, config)
        for m in range(config.experts)
    )
    if config.shared:
        gate = torch.sigmoid(h @ leaf(path + "shared_gate.w")) if config.shared_gate else 1
        for j in range(config.shared):
            out = out + gate * network(leaf, path + "shared.", j, h, config)
    return out
