"""Assignment 5: right answers that differ from the solution; mistakes, also of public code."""

import functools

from moe_np.coursework.bank import changed, template

SAMPLES = """
def make_samples(features, centers, draws):
    x = np.zeros((len(draws["y"]), 4, features.shape[1]))
    for n in range(len(x)):
        d = {{name: values[n] for name, values in draws.items()}}
        y, k = {y}, d["cluster"]
        patches = [
            d["alpha"] * y * features[k],
            d["beta"] * centers[k],
            d["gamma"] * {decoy},
            d["noise"],
        ]
        for i in range(4):
            {put}
    return {result}
"""
_samples = template(
    SAMPLES,
    y='(-1 if d["y"] == 0 else 1)',
    decoy='d["sign"] * features[d["other"]]',
    put='x[n, i] = patches[d["order"][i]]',
    result="10 * x",
)


BANK = {
    "q1_samples": {
        "right": [
            _samples(),
            """
def make_samples(features, centers, draws):
    d, K = draws, len(features)
    y, here, elsewhere = 2.0 * d["y"] - 1, np.eye(K)[d["cluster"]], np.eye(K)[d["other"]]
    signal = np.einsum("n,n,nk,kd->nd", d["alpha"], y, here, features)
    decoy = np.einsum("n,n,nk,kd->nd", d["gamma"], d["sign"], elsewhere, features)
    center = np.einsum("n,nk,kd->nd", d["beta"], here, centers)
    patches = np.array([signal, center, decoy, d["noise"]])
    return (10 * patches[d["order"], np.arange(len(y))[:, None]]).astype(np.float32)
""",
        ],
        "wrong": {
            "classes 0 and 1 in the product": _samples(y='d["y"]'),
            "classes exchanged": _samples(y='(1 - 2 * d["y"])'),
            "the decoy has the sample's sign": _samples(decoy='y * features[d["other"]]'),
            "the decoy is the signal of the sample's cluster": _samples(
                decoy='d["sign"] * features[k]'
            ),
            "patch i goes to place order[i]": _samples(put='x[n, d["order"][i]] = patches[i]'),
            "not in any order": _samples(put="x[n, i] = patches[i]"),
            "not times 10": _samples(result="x"),
        },
    },
    "q2_experts": {
        "right": [
            """
def expert_outputs(w, x, expert, activation):
    power, J = {"cubic": 3, "linear": 1}[activation], w.shape[1] // 2
    f = [[0.0, 0.0] for _ in x]
    for n, m in enumerate(expert):
        for c in range(2):
            for filt in w[m, c * J : (c + 1) * J]:
                for patch in x[n]:
                    f[n][c] += (filt @ patch) ** power
    return np.array(f)
""",
            """
def expert_outputs(w, x, expert, activation):
    z = np.einsum("npd,njd->npj", x.astype(np.float32), w[expert].astype(np.float32))
    s = z**3 if activation == "cubic" else z
    return np.stack([half.sum(axis=(1, 2)) for half in np.split(s, 2, axis=2)], axis=1)
""",
        ],
        "wrong": {},
    },
    "q3_expert_gradient": {
        "right": [
            """
def expert_gradient(df, w, x, expert, activation):
    dw, J = np.zeros(w.shape), w.shape[1] // 2
    for n, m in enumerate(expert):
        for j in range(2 * J):
            for patch in x[n]:
                slope = 3 * (w[m, j] @ patch) ** 2 if activation == "cubic" else 1.0
                dw[m, j] += df[n, j // J] * slope * patch
    return dw
""",
            """
def expert_gradient(df, w, x, expert, activation):
    x, w = x.astype(np.float32), w.astype(np.float32)
    z = np.einsum("npd,njd->npj", x, w[expert])
    slope = 3 * z**2 if activation == "cubic" else 1 + 0 * z
    dz = (df[:, None, np.repeat([0, 1], w.shape[1] // 2)] * slope).astype(np.float32)
    return np.einsum("ne,npj,npd->ejd", np.eye(len(w), dtype=np.float32)[expert], dz, x)
""",
        ],
        "wrong": {},
    },
    "q4_route": {
        "right": [
            """
def route(theta, x, noise):
    h = sum(x[:, p] @ theta.T for p in range(x.shape[1]))
    expert = np.argsort(-(h + noise), axis=1)[:, 0]
    weight = [1 / np.exp((row - row[m]).clip(-700, 700)).sum() for row, m in zip(h, expert)]
    return expert, np.array(weight)
""",
            """
def route(theta, x, noise):
    h = np.einsum("ed,npd->ne", theta, x)
    best = [max(range(len(theta)), key=lambda m: row[m]) for row in h + noise]
    expert = np.array(best)
    chosen = np.take_along_axis(h, expert[:, None], axis=1)[:, 0]
    return expert, np.exp(chosen - np.logaddexp.reduce(h, axis=1)).astype(np.float32)
""",
        ],
        "wrong": {},
    },
    "q5_router_gradient": {
        "right": [
            """
def router_gradient(dweight, theta, x, expert):
    dtheta = np.zeros(theta.shape)
    for n, m in enumerate(expert):
        total = x[n].sum(axis=0)
        h = theta @ total
        p = np.exp(h - h.max()) / np.exp(h - h.max()).sum()
        for i in range(len(theta)):
            dtheta[i] += dweight[n] * p[m] * ((i == m) - p[i]) * total
    return dtheta
""",
            """
def router_gradient(dweight, theta, x, expert):
    theta, total = theta.astype(np.float32), x.sum(axis=1).astype(np.float32)
    h = total @ theta.T
    e = np.exp(h - h.max(axis=1)[:, None])
    p = e / e.sum(axis=1, keepdims=True)
    dp = np.eye(len(theta))[expert] * dweight[:, None]
    ds = p * (dp - (p * dp).sum(axis=1, keepdims=True))
    return np.einsum("ne,nd->ed", ds, total)
""",
        ],
        "wrong": {},
    },
}

OUTPUTS = """
def expert_outputs(w, x, expert, activation):
    J, f = w.shape[1] // 2, np.zeros((len(x), 2))
    for m in range(len(w)):
        members = np.flatnonzero(expert == m)
        z = x[members] @ w[m].T
        s = (z**3 if activation == "cubic" else z).sum(axis=1)
        f[members] = np.stack([s[:, :J].sum(axis=1), s[:, J:].sum(axis=1)], axis=1)
    return f
"""


_outputs = functools.partial(changed, OUTPUTS)

BANK["q2_experts"]["wrong"] = {
    "cube of the sum of the patches": _outputs(
        (
            's = (z**3 if activation == "cubic" else z).sum(axis=1)',
            's = z.sum(axis=1) ** (3 if activation == "cubic" else 1)',
        )
    ),
    "cube of a class's sum": _outputs(
        ('s = (z**3 if activation == "cubic" else z).sum(axis=1)', "s = z.sum(axis=1)"),
        ("axis=1)], axis=1)", 'axis=1)], axis=1) ** (3 if activation == "cubic" else 1)'),
    ),
    "filters of the classes in turn": _outputs(
        ("s[:, :J]", "s[:, ::2]"), ("s[:, J:]", "s[:, 1::2]")
    ),
    "always cubic": _outputs(('(z**3 if activation == "cubic" else z)', "(z**3)")),
    "ReLU": _outputs(("z**3", "np.maximum(z, 0)")),
    "without a sign": _outputs(("z**3", "np.abs(z) ** 3")),
    "mean over the patches": _outputs(("else z).sum(axis=1)", "else z).mean(axis=1)")),
    "as many experts as the largest entry": _outputs(
        ("J, f = w.shape[1] // 2, np.zeros", "J, f = w.shape[1] // 2, np.ones"),
        ("range(len(w))", "range(expert.max())"),
    ),
    "expert 0 for all samples": _outputs(
        ("members = np.flatnonzero(expert == m)", "m, members = 0, np.arange(len(x))")
    ),
}

GRADIENT = """
def expert_gradient(df, w, x, expert, activation):
    dw = np.zeros(w.shape)
    for m in range(len(w)):
        members = np.flatnonzero(expert == m)
        z = x[members] @ w[m].T
        slope = 3 * z**2 if activation == "cubic" else np.ones(z.shape)
        dz = np.repeat(df[members], w.shape[1] // 2, axis=1)[:, None, :] * slope
        dw[m] = np.einsum("npj,npd->jd", dz, x[members])
    return dw
"""


_gradient = functools.partial(changed, GRADIENT)

BANK["q3_expert_gradient"]["wrong"] = {
    "the 3 is missing": _gradient(("3 * z**2", "z**2")),
    "z instead of its slope": _gradient(("3 * z**2", "z**3")),
    "all samples for every expert": _gradient(("np.flatnonzero(expert == m)", "np.arange(len(x))")),
    "classes in turn": _gradient(
        ("np.repeat(df[members], w.shape[1] // 2, axis=1)", "np.tile(df[members], w.shape[1] // 2)")
    ),
    "mean over an expert's samples": _gradient(
        ("dz, x[members])", "dz, x[members]) / max(len(members), 1)"),
    ),
    "as many experts as the largest entry": _gradient(
        ("np.zeros(w.shape)", "np.zeros((expert.max() + 1, *w.shape[1:]))"),
        ("range(len(w))", "range(len(dw))"),
    ),
    "mean over all samples": _gradient(("return dw", "return dw / len(x)")),
    "slope of the patches' sum": _gradient(
        ("3 * z**2", "3 * np.broadcast_to(z.sum(axis=1, keepdims=True) ** 2, z.shape)")
    ),
    "0/0 without samples": _gradient(
        ("dz, x[members])", "dz, x[members]) * (len(members) / np.float64(len(members)))"),
    ),
}

ROUTE = """
def route(theta, x, noise):
    h = x.sum(axis=1) @ theta.T
    noisy = h + noise
    expert = noisy.argmax(axis=1)
    e = np.exp(h - h.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return expert, p[np.arange(len(x)), expert]
"""


_route = functools.partial(changed, ROUTE)

BANK["q4_route"]["wrong"] = {
    "the noise counts in the weight": _route(("np.exp(h - h.max(", "np.exp(noisy - noisy.max(")),
    "the raw noisy logit, as in the authors' code": _route(("p[np.arange", "noisy[np.arange")),
    "no noise in the choice": _route(("noisy.argmax", "h.argmax")),
    "overflow": _route((" - h.max(axis=1, keepdims=True)", "")),
    "one maximum for all samples": _route(("h.max(axis=1, keepdims=True)", "h.max()")),
    "logits clipped": _route(
        ("np.exp(h - h.max(axis=1, keepdims=True))", "np.exp(np.clip(h, -500, 500))")
    ),
    "softmax over the samples": _route(
        ("h.max(axis=1, keepdims=True)", "h.max(axis=0)"),
        ("e.sum(axis=1, keepdims=True)", "e.sum(axis=0)"),
    ),
    "mean of the patches": _route(("x.sum(axis=1)", "x.mean(axis=1)")),
    "the largest weight": _route(("p[np.arange(len(x)), expert]", "p.max(axis=1)")),
    "weight 1": _route(("p[np.arange(len(x)), expert]", "np.ones(len(x))")),
}

ROUTER = """
def router_gradient(dweight, theta, x, expert):
    total, rows = x.sum(axis=1), np.arange(len(x))
    h = total @ theta.T
    e = np.exp(h - h.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    onehot = np.eye(len(theta))[expert]
    dh = (dweight * p[rows, expert])[:, None] * (onehot - p)
    return dh.T @ total
"""


_router = functools.partial(changed, ROUTER)

BANK["q5_router_gradient"]["wrong"] = {
    "overflow": _router((" - h.max(axis=1, keepdims=True)", "")),
    "one maximum for all samples": _router(("h.max(axis=1, keepdims=True)", "h.max()")),
    "only the chosen logit": _router(("(onehot - p)", "onehot * (1 - p)")),
    "the raw gate's gradient": _router(
        ("(dweight * p[rows, expert])[:, None] * (onehot - p)", "dweight[:, None] * onehot")
    ),
    "gradient of the logarithm": _router(("(dweight * p[rows, expert])", "dweight")),
    "as for a cross-entropy": _router(("(onehot - p)", "(p - onehot)")),
    "one patch of four": _router(("x.sum(axis=1)", "x[:, 0]")),
    "mean over the samples": _router(("dh.T @ total", "dh.T @ total / len(x)")),
    "1 − p for all experts": _router(("(onehot - p)", "(1 - p)")),
}

TRAIN = """
def train(w, theta, x, y, noise, activation, lr, lr_router):
    J, N, total = w.shape[1] // 2, len(x), x.sum(axis=1)
    hit = np.eye(2)[y]
    for r in noise:
        h = total @ theta.T
        expert = (h + r).argmax(axis=1)
        chosen = np.eye(len(w))[expert]
        p = np.exp(h - h.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        pi = (p * chosen).sum(axis=1)
        z = np.einsum("npd,njd->npj", x, w[expert])
        s = z**3 if activation == "cubic" else z
        f = np.stack([s[:, :, :J].sum(axis=(1, 2)), s[:, :, J:].sum(axis=(1, 2))], axis=1)
        out = pi[:, None] * f
        q = np.exp(out - out.max(axis=1, keepdims=True))
        q = q / q.sum(axis=1, keepdims=True)
        dout = (q - hit) / N
        dh = ((dout * f).sum(axis=1) * pi)[:, None] * (chosen - p)
        slope = 3 * z**2 if activation == "cubic" else np.ones(z.shape)
        dz = np.repeat(pi[:, None] * dout, J, axis=1)[:, None, :] * slope
        dw = np.einsum("ne,npj,npd->ejd", chosen, dz, x)
        norm = np.sqrt((dw**2).sum(axis=(1, 2), keepdims=True))
        dtheta = dh.T @ total
        w = w - lr * dw / np.where(norm > 0, norm, 1)
        theta = theta - lr_router * dtheta
    return w, theta
"""


_train = functools.partial(changed, TRAIN)

BANK["q6_train"] = {
    "right": [
        _train(
            (
                "    J, N,",
                "    w, theta = w.astype(np.float32), theta.astype(np.float32)\n"
                "    x, noise = x.astype(np.float32), noise.astype(np.float32)\n    J, N,",
            )
        ),
        """
def train(w, theta, x, y, noise, activation, lr, lr_router):
    E, J, N = len(w), w.shape[1] // 2, len(x)
    w, theta, power = w.copy(), theta.copy(), {"cubic": 3, "linear": 1}[activation]
    for r in noise:
        dw, dtheta = np.zeros(w.shape), np.zeros(theta.shape)
        for n in range(N):
            total = x[n].sum(axis=0)
            h = theta @ total
            m = int(np.argmax(h + r[n]))
            p = np.exp(h - h.max())
            p /= p.sum()
            z = w[m] @ x[n].T  # (2J, P)
            f = [(z[:J] ** power).sum(), (z[J:] ** power).sum()]
            right, other = f[y[n]] * p[m], f[1 - y[n]] * p[m]
            share = 1 / (1 + np.exp(right - other))  # of the other class
            dout = [0.0, 0.0]
            dout[y[n]], dout[1 - y[n]] = -share / N, share / N
            for j in range(2 * J):
                dw[m, j] += p[m] * dout[j // J] * (power * z[j] ** (power - 1)) @ x[n]
            dpi = dout[0] * f[0] + dout[1] * f[1]
            dtheta += dpi * p[m] * np.outer((np.arange(E) == m) - p, total)
        for m in range(E):
            length = np.linalg.norm(dw[m])
            if length:
                w[m] -= lr * dw[m] / length
        theta -= lr_router * dtheta
    return [w, theta]
""",
    ],
    "wrong": {
        "0/0 without samples": _train(("np.where(norm > 0, norm, 1)", "norm")),
        "one norm for all experts": _train(
            ("axis=(1, 2), keepdims=True))\n        dtheta", "keepdims=True))\n        dtheta")
        ),
        "a norm for each filter": _train(
            ("(dw**2).sum(axis=(1, 2), keepdims=True)", "(dw**2).sum(axis=2, keepdims=True)")
        ),
        "gradient descent without a norm": _train((" / np.where(norm > 0, norm, 1)", "")),
        "the router normalised too": _train(
            ("lr_router * dtheta", "lr_router * dtheta / np.linalg.norm(dtheta)")
        ),
        "sum of the losses": _train(("(q - hit) / N", "q - hit")),
        "two softmaxes": _train(
            (
                "dout = (q - hit) / N",
                "second = np.exp(q) / np.exp(q).sum(axis=1, keepdims=True)\n"
                "        dq = (second - hit) / N\n"
                "        dout = q * (dq - (q * dq).sum(axis=1, keepdims=True))",
            )
        ),
        "the raw noisy logit for a weight": _train(
            ("pi = (p * chosen).sum(axis=1)", "pi = ((h + r) * chosen).sum(axis=1)"),
            ("* pi)[:, None] * (chosen - p)", ")[:, None] * chosen"),
        ),
        "the same noise in every pass": _train(("(h + r)", "(h + noise[0])")),
        "changes its inputs": _train(
            (
                "w = w - lr * dw / np.where(norm > 0, norm, 1)",
                "w -= lr * dw / np.where(norm > 0, norm, 1)",
            ),
            ("theta = theta - lr_router * dtheta", "theta -= lr_router * dtheta"),
        ),
        "uphill": _train(
            ("w = w - lr", "w = w + lr"), ("theta = theta - lr", "theta = theta + lr")
        ),
        "overflow in the loss": _train(
            ("np.exp(out - out.max(axis=1, keepdims=True))", "np.exp(out)")
        ),
        "overflow in the router": _train(("np.exp(h - h.max(axis=1, keepdims=True))", "np.exp(h)")),
        "one maximum for all samples": _train(("h.max(axis=1, keepdims=True)", "h.max()")),
        "the router does not learn": _train(("theta = theta - lr_router * dtheta", "pass")),
    },
}

MEASURE = """
def measure(out, y, expert, cluster, n_experts, n_clusters):
    counts = np.zeros((n_experts, n_clusters))
    np.add.at(counts, (expert, cluster), 1)
    load = counts.sum(axis=1)
    p = counts / np.maximum(load, 1)[:, None]
    H = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
    return 100 * np.mean(out.argmax(axis=1) == y), counts, (load * H).sum() / load.sum()
"""


_measure = functools.partial(changed, MEASURE)

BANK["q7_measure"] = {
    "right": [
        """
def measure(out, y, expert, cluster, n_experts, n_clusters):
    counts = [[0] * n_clusters for _ in range(n_experts)]
    right = 0
    for n in range(len(y)):
        right += (out[n, 1] > out[n, 0]) == (y[n] == 1)
        counts[expert[n]][cluster[n]] += 1
    entropy = 0.0
    for row in counts:
        for c in row:
            if c:
                entropy -= c / len(y) * np.log(c / sum(row))
    return 100.0 * right / len(y), np.array(counts), entropy
""",
        """
def measure(out, y, expert, cluster, n_experts, n_clusters):
    # H(cluster | expert) = H(expert, cluster) - H(expert)
    def H(p):
        p = p[p > 0]
        return -(p * np.log(p)).sum()
    counts = np.eye(n_experts)[expert].T @ np.eye(n_clusters)[cluster]
    joint = (counts / counts.sum()).astype(np.float32)
    percent = float(((out[:, 1] > out[:, 0]) == y).mean() * 100)
    return percent, counts, H(joint) - H(joint.sum(axis=1))
""",
    ],
    "wrong": {
        "a fraction instead of percent": _measure(("100 * ", "")),
        "clusters in rows": _measure((", counts, (load", ", counts.T, (load")),
        "the mixture of experts in each cluster": _measure(
            ("counts.sum(axis=1)\n", "counts.sum(axis=0)\n"),
            ("np.maximum(load, 1)[:, None]", "np.maximum(load, 1)"),
            ("np.where(p > 0, p, 1))).sum(axis=1)", "np.where(p > 0, p, 1))).sum(axis=0)"),
        ),
        "bits": _measure(("np.log(", "np.log2(")),
        "all experts count alike": _measure(("(load * H).sum() / load.sum()", "H.mean()")),
        "0/0 without samples": _measure(("np.maximum(load, 1)", "load")),
        "index expert * n_experts + cluster": _measure(
            (
                "    counts = np.zeros((n_experts, n_clusters))\n"
                "    np.add.at(counts, (expert, cluster), 1)\n",
                "    size = n_experts * n_clusters\n"
                "    flat = np.bincount(expert * n_experts + cluster, minlength=size)[:size]\n"
                "    counts = flat.reshape(n_experts, n_clusters)\n",
            )
        ),
        "a table of 16 bits": _measure(
            ("np.zeros((n_experts, n_clusters))", "np.zeros((n_experts, n_clusters), np.uint16)")
        ),
        "a table of 8 bits": _measure(
            ("np.zeros((n_experts, n_clusters))", "np.zeros((n_experts, n_clusters), np.uint8)")
        ),
        "0 · ln 0": _measure(("np.where(p > 0, p, 1)", "p")),
        "entropy of the loads": _measure(
            ("p = counts / np.maximum(load, 1)[:, None]", "p = (load / load.sum())[:, None]")
        ),
        "as many experts as occur": _measure(
            ("np.zeros((n_experts, n_clusters))", "np.zeros((expert.max() + 1, cluster.max() + 1))")
        ),
    },
}
