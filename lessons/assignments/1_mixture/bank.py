"""Assignment 1: right answers that differ from the solution, and mistakes of students."""

import functools

from moe_np.coursework.bank import changed, template

BANK = {
    "q1_softmax": {
        "right": [
            """
def softmax(s):
    out = np.empty(s.shape, dtype=np.float32)
    for n in np.ndindex(s.shape[:-1]):
        e = [np.exp(v - max(s[n])) for v in s[n]]
        out[n] = np.array(e) / sum(e)
    return out
""",
            """
def softmax(s):
    top = np.max(s, axis=-1, keepdims=True)
    return np.exp(s - (top + np.log(np.sum(np.exp(s - top), axis=-1, keepdims=True))))
""",
        ],
        "wrong": {
            "no maximum subtracted": """
def softmax(s):
    return np.exp(s) / np.exp(s).sum(axis=-1, keepdims=True)
""",
            "one maximum for all rows": """
def softmax(s):
    e = np.exp(s - s.max())
    return e / e.sum(axis=-1, keepdims=True)
""",
            "wrong axis": """
def softmax(s):
    e = np.exp(s - s.max(axis=0))
    return e / e.sum(axis=0)
""",
            "sigmoid": """
def softmax(s):
    return 1 / (1 + np.exp(-s))
""",
            "in place": """
def softmax(s):
    s -= s.max(axis=-1, keepdims=True)
    np.exp(s, out=s)
    s /= s.sum(axis=-1, keepdims=True)
    return s
""",
            "axis 1, not the last": """
def softmax(s):
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
""",
            "two axes only": """
def softmax(s):
    e = np.exp(s - s.max(axis=-1)[:, None])
    return e / e.sum(axis=-1)[:, None]
""",
            "totals clipped": """
def softmax(s):
    e = np.exp(np.clip(s, -500, 500))
    return e / e.sum(axis=-1, keepdims=True)
""",
            "its logarithm": """
def softmax(s):
    s = s - s.max(axis=-1, keepdims=True)
    return s - np.log(np.exp(s).sum(axis=-1, keepdims=True))
""",
        },
    },
    "q2_gate_backward": {
        "right": [
            """
def gate_backward(dp, x, U, p):
    ds = np.zeros_like(p)
    for n in range(len(p)):
        jacobian = np.diag(p[n]) - np.outer(p[n], p[n])
        ds[n] = jacobian @ dp[n]
    return [np.einsum("ne,de->nd", ds, U), np.einsum("nd,ne->de", x, ds), np.einsum("ne->e", ds)]
""",
            """
def gate_backward(dp, x, U, p):
    dp, x, U, p = (v.astype(np.float32) for v in (dp, x, U, p))
    ds = dp * p
    ds -= p * ds.sum(-1)[:, None]
    return ds.dot(U.T), x.T.dot(ds), ds.sum(0)
""",
        ],
        "wrong": {
            "diagonal of the Jacobian only": """
def gate_backward(dp, x, U, p):
    ds = dp * p * (1 - p)
    return ds @ U.T, x.T @ ds, ds.sum(axis=0)
""",
            "mean over cases, N times too small": """
def gate_backward(dp, x, U, p):
    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True)) / 3
    return ds @ U.T, x.T @ ds, ds.sum(axis=0)
""",
            "through the logarithm of p": """
def gate_backward(dp, x, U, p):
    dlog = (dp * p) / p
    ds = p * (dlog - (dlog * p).sum(axis=1, keepdims=True))
    return ds @ U.T, x.T @ ds, ds.sum(axis=0)
""",
            "the opposite sign": """
def gate_backward(dp, x, U, p):
    ds = p * ((dp * p).sum(axis=1, keepdims=True) - dp)
    return ds @ U.T, x.T @ ds, ds.sum(axis=0)
""",
            "dp taken for ds": """
def gate_backward(dp, x, U, p):
    return dp @ U.T, x.T @ dp, dp.sum(axis=0)
""",
            "the bias for each case": """
def gate_backward(dp, x, U, p):
    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    return ds @ U.T, x.T @ ds, ds
""",
            "changes dp": """
def gate_backward(dp, x, U, p):
    dp -= (dp * p).sum(axis=1, keepdims=True)
    ds = p * dp
    return ds @ U.T, x.T @ ds, ds.sum(axis=0)
""",
        },
    },
    "q3_mixture_loss": {
        "right": [
            """
def mixture_loss(o, p, d):
    E = []
    for n in range(len(d)):
        open_gates = np.flatnonzero(p[n] > 0)
        a = [np.log(p[n, i]) - 0.5 * np.sum((d[n] - o[n, i]) ** 2) for i in open_gates]
        E.append(-np.logaddexp.reduce(a))
    return np.array(E, dtype=np.float32)
""",
            """
def mixture_loss(o, p, d):
    squares = np.where(p[:, :, None] > 0, (d[:, None] - o) ** 2, 1e300).sum(axis=2)
    least = 0.5 * np.min(squares, axis=1)
    rest = 0.5 * np.einsum("nec,nec->ne", d[:, None] - o, d[:, None] - o) - least[:, None]
    return least - np.log((p * np.exp(-np.where(p > 0, rest, 0))).sum(axis=1))
""",
        ],
        "wrong": {
            "not in log space": """
def mixture_loss(o, p, d):
    return -np.log((p * np.exp(-0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2))).sum(axis=1))
""",
            "a small number inside the logarithm": """
def mixture_loss(o, p, d):
    return -np.log((p * np.exp(-0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2))).sum(axis=1) + 1e-12)
""",
            "equation 2 instead of 3": """
def mixture_loss(o, p, d):
    return (p * 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)).sum(axis=1)
""",
            "no half in the exponent": """
def mixture_loss(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - ((d[:, None, :] - o) ** 2).sum(axis=2)
    return -np.logaddexp.reduce(a, axis=1)
""",
            "mean over cases": """
def mixture_loss(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    return -np.logaddexp.reduce(a, axis=1).mean()
""",
            "the likelihood's sign": """
def mixture_loss(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    return np.logaddexp.reduce(a, axis=1)
""",
        },
    },
    "q4_responsibilities": {
        "right": [
            """
def responsibilities(o, p, d):
    out = np.zeros(p.shape)
    for n in range(p.shape[0]):
        far = np.array([((d[n] - o[n, i]) ** 2).sum() for i in range(p.shape[1])])
        w = p[n] * np.exp(-0.5 * (far - far[p[n] > 0].min()).clip(0))
        out[n] = w / w.sum()
    return out
""",
            """
def responsibilities(o, p, d):
    o, p, d = o.astype(np.float32), p.astype(np.float32), d.astype(np.float32)
    log_p = np.where(p > 0, np.log(np.where(p > 0, p, 1)), -np.inf)
    a = log_p - 0.5 * np.einsum("nec->ne", (d[:, None] - o) ** 2)
    return np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
""",
        ],
        "wrong": {
            "not in log space": """
def responsibilities(o, p, d):
    share = p * np.exp(-0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2))
    return share / share.sum(axis=1, keepdims=True)
""",
            "a small number in the denominator": """
def responsibilities(o, p, d):
    share = p * np.exp(-0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2))
    return share / (share.sum(axis=1, keepdims=True) + 1e-12)
""",
            "without the gate": """
def responsibilities(o, p, d):
    a = -0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    share = np.exp(a - a.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)
""",
            "wrong axis": """
def responsibilities(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    share = np.exp(a - a.max(axis=0))
    return share / share.sum(axis=0)
""",
            "only the best expert": """
def responsibilities(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    return np.eye(p.shape[1])[a.argmax(axis=1)]
""",
        },
    },
    "q5_mixture_backward": {
        "right": [
            """
def mixture_backward(o, p, d):
    do, ds = np.zeros(o.shape), np.zeros(p.shape)
    for n in range(len(d)):
        far = ((d[n] - o[n]) ** 2).sum(axis=1)
        w = p[n] * np.exp(-0.5 * (far - far[p[n] > 0].min()).clip(0))
        h = w / w.sum()
        for i in range(len(h)):
            do[n, i] = h[i] * (o[n, i] - d[n])
            ds[n, i] = p[n, i] - h[i]
    return do, ds
""",
            """
def mixture_backward(o, p, d):
    o, p, d = o.astype(np.float32), p.astype(np.float32), d.astype(np.float32)
    log_p = np.where(p > 0, np.log(np.where(p > 0, p, 1)), -np.inf)
    a = log_p - 0.5 * np.einsum("nec->ne", (d[:, None] - o) ** 2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    return np.einsum("ne,nec->nec", h, o - d[:, None]), p - h
""",
        ],
        "wrong": {
            "weighted by p instead of the responsibility": """
def mixture_backward(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    return -p[:, :, None] * (d[:, None, :] - o), p - h
""",
            "mean over cases": """
def mixture_backward(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    return -h[:, :, None] * (d[:, None, :] - o) / len(d), (p - h) / len(d)
""",
            "the gate's sign": """
def mixture_backward(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    return -h[:, :, None] * (d[:, None, :] - o), h - p
""",
            "twice as large": """
def mixture_backward(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    return -2 * h[:, :, None] * (d[:, None, :] - o), p - h
""",
            "residual of the blend": """
def mixture_backward(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    y = np.einsum("ne,nec->nc", p, o)
    return -h[:, :, None] * (d - y)[:, None, :], p - h
""",
            "at p instead of at the totals": """
def mixture_backward(o, p, d):
    a = np.log(np.maximum(p, 1e-300)) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    h = np.exp(a - np.logaddexp.reduce(a, axis=1)[:, None])
    return -h[:, :, None] * (d[:, None, :] - o), -h / np.maximum(p, 1e-300)
""",
        },
    },
}

# Mistakes in what questions 3 to 5 share: a_i = log p_i - ½ ‖d - o_i‖², and its largest
SHARES = """
    squares = {squares}
    a = {log_p} - 0.5 * squares
    top = {top}
    share = np.exp(a - top)
    total = share.sum(axis=1, keepdims=True)
    h = share / total
"""
_shares = template(
    SHARES,
    squares="((d[:, None, :] - o) ** 2).sum(axis=2)",
    log_p="np.log(p)",
    top="a.max(axis=1, keepdims=True)",
)
SHARED = {
    "one maximum for the whole batch": _shares(top="np.full((len(d), 1), a.max())"),
    "one maximum for each expert": _shares(top="a.max(axis=0, keepdims=True)"),
    "log(p + 1e-12)": _shares(log_p="np.log(p + 1e-12)"),
    "log of at least 1e-12": _shares(log_p="np.log(np.maximum(p, 1e-12))"),
    "log of at least 1e-38": _shares(log_p="np.log(np.maximum(p, 1e-38))"),
    "log of at least 1e-300": _shares(log_p="np.log(np.maximum(p, 1e-300))"),
    "distance from the first output only": _shares(squares="(d[:, None, 0] - o[:, :, 0]) ** 2"),
    "mean over the outputs": _shares(squares="((d[:, None, :] - o) ** 2).mean(axis=2)"),
    "distances clipped": _shares(
        squares="np.minimum(((d[:, None, :] - o) ** 2).sum(axis=2), 1400)"
    ),
}
for question, head, result in (
    ("q3_mixture_loss", "mixture_loss", "-(top + np.log(total))[:, 0]"),
    ("q4_responsibilities", "responsibilities", "h"),
    ("q5_mixture_backward", "mixture_backward", "-h[:, :, None] * (d[:, None] - o), p - h"),
):
    for mistake, body in SHARED.items():
        source = f"\ndef {head}(o, p, d):{body}    return {result}\n"
        BANK[question]["wrong"][mistake] = source

TRAIN = """
def train(params, x, d, lr, epochs):
    W, b, U, c = (params[k] for k in "WbUc")
    for _ in range(epochs):
        o = 1 / (1 + np.exp(-(np.einsum("nd,edc->nec", x, W) + b)))
        s = x @ U + c
        p = np.exp(s - s.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        h = p * np.exp(-0.5 * ((d[:, None] - o) ** 2).sum(axis=2))
        h /= h.sum(axis=1, keepdims=True)
        t = h[:, :, None] * (o - d[:, None]) * o * (1 - o)
        W = W - lr * np.einsum("nd,nec->edc", x, t)
        b = b - lr * t.sum(axis=0)
        U = U - lr * x.T @ (p - h)
        c = c - lr * (p - h).sum(axis=0)
    return {"W": W, "b": b, "U": U, "c": c}
"""
LAST = "c = c - lr * (p - h).sum(axis=0)"

_train = functools.partial(changed, TRAIN)

BANK["q6_train"] = {
    "right": [
        _train(("params[k]", "params[k].astype(np.float32)")),
        """
def train(params, x, d, lr, epochs):
    new = {name: value.copy() for name, value in params.items()}
    E, D, C = new["W"].shape
    for _ in range(epochs):
        step = {name: np.zeros(value.shape) for name, value in new.items()}
        for n in range(len(x)):
            o = np.array([1 / (1 + np.exp(-(x[n] @ new["W"][i] + new["b"][i]))) for i in range(E)])
            s = x[n] @ new["U"] + new["c"]
            p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
            share = p * np.exp(-0.5 * np.array([((d[n] - o[i]) ** 2).sum() for i in range(E)]))
            resp = share / share.sum()
            for i in range(E):
                total = -resp[i] * (d[n] - o[i]) * o[i] * (1 - o[i])
                step["W"][i] += np.outer(x[n], total)
                step["b"][i] += total
                step["U"][:, i] += x[n] * (p[i] - resp[i])
                step["c"][i] += p[i] - resp[i]
        for name in new:
            new[name] -= lr * step[name]
    return new
""",
    ],
    "wrong": {
        "mean over cases": _train(("lr *", "lr / len(x) *")),
        "changes the parameters that came in": _train(("W = W -", "W -=")),
        "uphill": _train(("- lr *", "+ lr *")),
        "no slope of the sigmoid": _train((" * o * (1 - o)", "")),
        "gate without bias": _train((LAST, "pass")),
        "weighted by p": _train(("t = h[:, :, None]", "t = p[:, :, None]")),
        "distance from the first output only": _train(
            ("((d[:, None] - o) ** 2).sum(axis=2)", "(d[:, None, 0] - o[:, :, 0]) ** 2")
        ),
        "mean over the outputs": _train((").sum(axis=2))", ").mean(axis=2))")),
        "no maximum subtracted in the gate": _train(("s - s.max(axis=1, keepdims=True)", "s")),
        "one maximum for all cases": _train(("s.max(axis=1, keepdims=True)", "s.max()")),
        "one epoch only": _train((LAST, f"{LAST}\n        break")),
    },
}

REPORT = """
def report(params, x, d):
    o = 1 / (1 + np.exp(-(np.einsum("nd,edc->nec", x, params["W"]) + params["b"])))
    s = x @ params["U"] + params["c"]
    p = np.exp(s - {top})
    p /= p.sum(axis=1, keepdims=True)
    y = {blend}
    share = np.array([(p.argmax(axis=1) == i).mean() for i in range(p.shape[1])])
    return {error}, {percent}, {active}
"""
_report = template(
    REPORT,
    top="s.max(axis=1, keepdims=True)",
    blend='np.einsum("ne,nec->nc", p, o)',
    error="np.mean((d - y) ** 2)",
    percent="100 * np.mean((y > 0.5) == (d > 0.5))",
    active="int(np.sum(share >= 0.05))",
)

BANK["q7_report"] = {
    "right": [
        _report(),
        """
def report(params, x, d):
    mistakes, error, won = 0, 0.0, [0] * len(params["c"])
    for n in range(len(x)):
        s = (x[n] @ params["U"] + params["c"]).astype(np.float32)
        e = np.exp(s - s.max())
        p = e / e.sum()
        y = 0
        for i in range(len(p)):
            y = y + p[i] / (1 + np.exp(-(x[n] @ params["W"][i] + params["b"][i])))
        error += ((d[n] - y) ** 2).sum() / len(x)
        mistakes += int((y[0] > 0.5) != (d[n, 0] > 0.5))
        won[int(np.argmax(p))] += 1
    return [error, 100 - 100 * mistakes / len(x), sum(20 * w >= len(x) for w in won)]
""",
    ],
    "wrong": {
        "a fraction instead of percent": _report(percent="np.mean((y > 0.5) == (d > 0.5))"),
        "the best expert instead of the blend": _report(
            blend="o[np.arange(len(x)), p.argmax(axis=1)]"
        ),
        "mean of the experts without the gate": _report(blend="o.mean(axis=1)"),
        "no maximum subtracted in the gate": _report(top="0"),
        "one maximum for all cases": _report(top="s.max()"),
        "half the squared error": _report(error="0.5 * np.mean((d - y) ** 2)"),
        "every expert that has the largest p once": _report(active="int(np.sum(share > 0))"),
        "more than a twentieth": _report(active="int(np.sum(share > 0.05))"),
        "a twentieth, rounded down": _report(
            active="int(np.sum(share * len(x) >= int(0.05 * len(x))))"
        ),
        "a twentieth, rounded": _report(
            active="int(np.sum(share * len(x) >= max(1, round(0.05 * len(x)))))"
        ),
        "mean of p instead of how often it is largest": _report(
            active="int(np.sum(p.mean(axis=0) >= 0.05))"
        ),
    },
}
