"""A second statement of the encoder-decoder, in PyTorch with autograd: every expert on every token,
every head by itself, distances put into buckets one by one. It shares no code with the package.
"""

import math

import torch
import torch.nn.functional as F


def logits(leaf, source, inputs, config, source_valid=None):
    """leaf(path) -> tensor; source (B, S), inputs (B, T) -> logits (B, T, V)."""
    if source_valid is None:
        source_valid = torch.ones(source.shape, dtype=torch.bool)
    memory = stack(leaf, "encoder", source, config, source_valid, None, None)
    x = stack(leaf, "decoder", inputs, config, None, memory, source_valid)
    if config.tied:
        return (x / math.sqrt(config.d_model)) @ leaf("embed.w").T
    return x @ leaf("head.w")


def stack(leaf, side, ids, config, valid, memory, memory_valid):
    x = leaf("embed.w")[ids]
    T = ids.shape[1]
    bias = leaf(f"{side}.position.w")
    bucket = [[bucket_of(s - t, side == "encoder", config) for s in range(T)] for t in range(T)]
    bias = bias[torch.tensor(bucket)]  # (T, T, heads)
    hidden = torch.zeros(len(ids), T, T, dtype=torch.bool)
    if side == "decoder":
        hidden |= torch.ones(T, T, dtype=torch.bool).triu(1)
    else:
        hidden |= ~valid[:, None, :]
    n_layers = config.encoder_layers if side == "encoder" else config.decoder_layers
    for i in range(n_layers):
        path = f"{side}.layers.{i}."
        h = rms(x, leaf(path + "norm1.g"), config)
        x = x + attention(leaf, path + "attention.", h, h, hidden, bias, config)
        if side == "decoder":
            h = rms(x, leaf(path + "norm_cross.g"), config)
            far = (~memory_valid)[:, None, :].expand(-1, T, -1)
            x = x + attention(leaf, path + "cross.", h, memory, far, None, config)
        h = rms(x, leaf(path + "norm2.g"), config)
        x = x + feed_forward(leaf, path, h, config, i, side)
    return rms(x, leaf(f"{side}.norm.g"), config)


def bucket_of(distance, both_directions, config):
    """The bucket of key position − query position."""
    n = config.buckets // 2 if both_directions else config.buckets
    first = n if both_directions and distance > 0 else 0
    distance = abs(distance) if both_directions else max(-distance, 0)
    half = n // 2
    if distance < half:
        return first + distance
    growth = math.log(distance / half) / math.log(config.max_distance / half)
    return first + min(n - 1, half + int(growth * (n - half) + 1e-9))


def rms(x, g, config):
    return g * x / torch.sqrt((x * x).mean(-1, keepdim=True) + config.eps)


def attention(leaf, path, x, source, hidden, bias, config):
    d = config.d_head
    outs = []
    for j in range(config.heads):
        part = slice(j * d, (j + 1) * d)
        q = x @ leaf(path + "wq")[:, part]
        k, v = (source @ leaf(path + name)[:, part] for name in ("wk", "wv"))
        scores = q @ k.transpose(1, 2)
        if bias is not None:
            scores = scores + bias[..., j]
        outs.append(torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v)
    return torch.cat(outs, -1) @ leaf(path + "wo")


def network(leaf, path, m, h, config):
    act = {"relu": F.relu, "gelu": F.gelu}[config.expert]
    w1, w2 = leaf(path + "w1")[m], leaf(path + "w2")[m]
    return act(h @ w1) @ w2


def feed_forward(leaf, path, h, config, i, side):
    dense = config.encoder_dense if side == "encoder" else config.decoder_dense
    if config.experts == 1 or (i % 2 == 0 if dense is None else i in dense):
        return network(leaf, path + "experts.", 0, h, config)
    p = torch.softmax(h @ leaf(path + "router.w"), -1)
    kept = p * (p == p.max(-1, keepdim=True).values)
    return sum(
        kept[..., m : m + 1] * network(leaf, path + "experts.", m, h, config)
        for m in range(config.experts)
    )
