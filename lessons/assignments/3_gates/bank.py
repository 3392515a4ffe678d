"""Assignment 3: right answers that differ from the solution, and mistakes of students."""

from moe_np.coursework.bank import changed

GATE = """
def top_k_gate(logits, k, renormalise):
    choice = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    kept = np.zeros(logits.shape, dtype=bool)
    kept[np.arange(len(logits))[:, None], choice] = True
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    G = np.where(kept, p, 0)
    if renormalise:
        G = G / G.sum(axis=1, keepdims=True)
    return G, kept
"""
BACKWARD = """
def gate_backward(dG, logits, kept, renormalise):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    dp = np.where(kept, dG, 0)
    if renormalise:
        total = (p * kept).sum(axis=1, keepdims=True)
        G = p * kept / total
        return G * (dp - (G * dp).sum(axis=1, keepdims=True))
    return p * (dp - (p * dp).sum(axis=1, keepdims=True))
"""
NOISE = """
def noisy_logits(x, w, w_noise, noise):
    clean = x @ w
    raw = x @ w_noise
    sigma = np.logaddexp(0, raw)
    if noise is None:
        return clean, sigma, clean
    return clean, sigma, clean + sigma * noise
"""

BANK = {
    "q1_top_k": {
        "right": [
            GATE,
            """
def top_k_gate(logits, k, renormalise):
    G, kept = np.zeros(logits.shape, np.float32), np.zeros(logits.shape, np.int8)
    for n, row in enumerate(logits):
        first = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        over = first if renormalise else range(len(row))
        total = sum(np.exp(row[j] - max(row)) for j in over)
        for i in first:
            G[n, i], kept[n, i] = np.exp(row[i] - max(row)) / total, 1
    return [G, kept]
""",
        ],
        "wrong": {
            "all that reach the k-th largest": changed(
                GATE,
                (
                    "    e = np",
                    "    kept = logits >= np.sort(logits, axis=1)[:, -k:][:, :1]\n    e = np",
                ),
            ),
            "a sort that is not stable": changed(GATE, (', kind="stable"', "")),
            "argpartition": changed(
                GATE,
                (
                    'np.argsort(-logits, axis=1, kind="stable")[:, :k]',
                    "np.argpartition(-logits, k - 1, axis=1)[:, :k]",
                ),
            ),
            "kept where the weight is not 0": changed(
                GATE, ("    return G, kept", "    return G, G > 0")
            ),
            "one maximum for all tokens": changed(
                GATE, ("logits.max(axis=1, keepdims=True)", "logits.max()")
            ),
            "-100 for -infinity": changed(
                GATE,
                (
                    "    e = np.exp(logits - logits.max",
                    "    if renormalise:\n        logits = np.where(kept, logits, -100)\n"
                    "    e = np.exp(logits - logits.max",
                ),
                ("np.where(kept, p, 0)", "p"),
            ),
            "the highest index wins a tie": changed(
                GATE,
                (
                    'np.argsort(-logits, axis=1, kind="stable")[:, :k]',
                    'np.argsort(logits, axis=1, kind="stable")[:, -k:]',
                ),
            ),
            "always renormalised": changed(GATE, ("if renormalise", "if True")),
            "never renormalised": changed(GATE, ("if renormalise", "if False")),
            "softmax of logits set to 0": changed(
                GATE,
                (
                    "    e = np.exp(logits -",
                    "    masked = np.where(kept, logits, 0) if renormalise else logits\n"
                    "    e = np.exp(masked -",
                ),
                ("masked - logits.max", "masked - masked.max"),
                ("G = np.where(kept, p, 0)", "G = p"),
                ("G = G / G.sum(axis=1, keepdims=True)", "pass"),
            ),
            "no maximum subtracted": changed(
                GATE, ("logits - logits.max(axis=1, keepdims=True)", "logits")
            ),
            "a sigmoid for each expert": changed(
                GATE,
                (
                    "    G = np.where",
                    "    p = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))\n    G = np.where",
                ),
            ),
            "the smallest": changed(GATE, ("argsort(-logits", "argsort(logits")),
        },
    },
    "q2_backward": {
        "right": [
            BACKWARD,
            """
def gate_backward(dG, logits, kept, renormalise):
    out = np.zeros(logits.shape, np.float32)
    for n in range(len(logits)):
        first = np.flatnonzero(kept[n])
        over = first if renormalise else np.arange(logits.shape[1])
        p = np.exp(logits[n, over] - logits[n].max())
        p /= p.sum()
        jacobian = np.diag(p) - np.outer(p, p)
        d = np.array([dG[n, i] if kept[n, i] else 0.0 for i in over])
        out[n, over] = jacobian @ d
    return out
""",
        ],
        "wrong": {
            "the softmax over all, divided by a constant": changed(
                BACKWARD,
                (
                    "        return G * (dp - (G * dp)",
                    "        dp = dp / total\n        return p * (dp - (p * dp)",
                ),
            ),
            "with a small number in the denominator": changed(
                BACKWARD,
                (
                    "total = (p * kept).sum(axis=1, keepdims=True)",
                    "total = (p * kept).sum(axis=1, keepdims=True) + 1e-6",
                ),
                (
                    "        return G * (dp - (G * dp).sum(axis=1, keepdims=True))",
                    "        dp = kept * (dp - (G * dp).sum(axis=1, keepdims=True)) / total\n"
                    "        return p * (dp - (p * dp).sum(axis=1, keepdims=True))",
                ),
            ),
            "dG of experts that are not kept, times 0": changed(
                BACKWARD, ("np.where(kept, dG, 0)", "dG * kept")
            ),
            "dG of experts that are not kept": changed(BACKWARD, ("np.where(kept, dG, 0)", "dG")),
            "kept logits only, not renormalised either": changed(
                BACKWARD,
                (
                    "    return p * (dp - (p * dp).sum(axis=1, keepdims=True))\n",
                    "    return kept * p * (dp - (p * dp).sum(axis=1, keepdims=True))\n",
                ),
            ),
            "no maximum subtracted": changed(
                BACKWARD, ("logits - logits.max(axis=1, keepdims=True)", "logits")
            ),
            "one maximum for all tokens": changed(
                BACKWARD, ("logits.max(axis=1, keepdims=True)", "logits.max()")
            ),
            "as if renormalised, always": changed(BACKWARD, ("if renormalise", "if True")),
            "as if not renormalised, always": changed(BACKWARD, ("if renormalise", "if False")),
            "diagonal of the Jacobian only": changed(
                BACKWARD,
                ("G * (dp - (G * dp).sum(axis=1, keepdims=True))", "G * (1 - G) * dp"),
                ("p * (dp - (p * dp).sum(axis=1, keepdims=True))", "p * (1 - p) * dp"),
            ),
            "mean over tokens": changed(
                BACKWARD, ("np.where(kept, dG, 0)", "np.where(kept, dG, 0) / len(dG)")
            ),
        },
    },
    "q3_noise": {
        "right": [
            NOISE,
            """
def noisy_logits(x, w, w_noise, noise):
    x, w, w_noise = (v.astype(np.float32) for v in (x, w, w_noise))
    clean, sigma = np.einsum("nd,de->ne", x, w), np.einsum("nd,de->ne", x, w_noise)
    sigma = np.where(sigma > 30, sigma, np.log1p(np.exp(np.minimum(sigma, 30))))
    return [clean, sigma, clean + sigma * (0 if noise is None else noise)]
""",
        ],
        "wrong": {
            "the gate's matrix for the scale of the noise": changed(
                NOISE, ("x @ w_noise", "x @ w")
            ),
            "overflow": changed(NOISE, ("np.logaddexp(0, raw)", "np.log(1 + np.exp(raw))")),
            "clipped before the softplus": changed(
                NOISE, ("np.logaddexp(0, raw)", "np.log1p(np.exp(np.clip(raw, -50, 50)))")
            ),
            "no sigma at evaluation": changed(
                NOISE,
                (
                    "        return clean, sigma, clean\n",
                    "        return clean, 0 * sigma, clean\n",
                ),
            ),
            "exp instead of softplus": changed(
                NOISE, ("np.logaddexp(0, raw)", "np.exp(np.minimum(raw, 700))")
            ),
            "relu instead of softplus": changed(
                NOISE, ("np.logaddexp(0, raw)", "np.maximum(raw, 0)")
            ),
            "noise on the input": changed(
                NOISE,
                (
                    "    return clean, sigma, clean + sigma * noise",
                    "    return clean, sigma, (x + noise[:, :1]) @ w",
                ),
            ),
            "noise at evaluation": changed(
                NOISE,
                (
                    "        return clean, sigma, clean\n",
                    "        noise = np.random.default_rng(0).normal(size=clean.shape)\n",
                ),
            ),
            "evaluation is forgotten": changed(
                NOISE, ("    if noise is None:\n        return clean, sigma, clean\n", "")
            ),
            "clean gets the noise as well": changed(
                NOISE,
                (
                    "    return clean, sigma, clean + sigma * noise",
                    "    clean += sigma * noise\n    return clean, sigma, clean",
                ),
            ),
            "noise not scaled": changed(NOISE, ("clean + sigma * noise", "clean + noise")),
        },
    },
}

# --- Load -----------------------------------------------------------------------------------------

LOAD = """
def load(clean, sigma, noisy, k, valid):
    clean, sigma, noisy = clean[valid], sigma[valid], noisy[valid]
    N, E = clean.shape
    if k == E:
        return np.full(E, N)
    ranked = -np.sort(-noisy, axis=1)
    inside = noisy > ranked[:, k:k + 1]
    threshold = np.where(inside, ranked[:, k:k + 1], ranked[:, k - 1:k])
    P = Phi((clean - threshold) / sigma)
    return P.sum(axis=0)
"""
LOAD_BACKWARD = """
def load_backward(dload, clean, sigma, noise, k):
    noisy = clean + sigma * noise
    rows = np.arange(len(clean))
    order = np.argsort(-noisy, axis=1)
    last, runner_up = order[:, k - 1], order[:, k]
    kept = noisy >= noisy[rows, last][:, None]
    threshold = np.where(kept, noisy[rows, runner_up][:, None], noisy[rows, last][:, None])
    z = (clean - threshold) / sigma
    slope = dload * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) / sigma
    dclean, dsigma = slope.copy(), -slope * z
    to_runner_up, to_last = -(slope * kept).sum(axis=1), -(slope * ~kept).sum(axis=1)
    dclean[rows, runner_up] += to_runner_up
    dclean[rows, last] += to_last
    dsigma[rows, runner_up] += to_runner_up * noise[rows, runner_up]
    dsigma[rows, last] += to_last * noise[rows, last]
    return dclean, dsigma
"""

BANK["q4_load"] = {
    "right": [
        LOAD,
        """
def load(clean, sigma, noisy, k, valid):
    out = np.zeros(clean.shape[1], np.float32)
    for n in np.flatnonzero(valid):
        for i in range(len(out)):
            rivals = sorted(np.delete(noisy[n], i), reverse=True)
            out[i] += Phi((clean[n, i] - rivals[k - 1]) / sigma[n, i]) if k <= len(rivals) else 1
    return out
""",
    ],
    "wrong": {
        "k-th of all": changed(
            LOAD, ("np.where(inside, ranked[:, k:k + 1], ranked[:, k - 1:k])", "ranked[:, k - 1:k]")
        ),
        "(k + 1)-th of all": changed(
            LOAD, ("np.where(inside, ranked[:, k:k + 1], ranked[:, k - 1:k])", "ranked[:, k:k + 1]")
        ),
        "the two thresholds exchanged": changed(LOAD, ("np.where(inside", "np.where(~inside")),
        "thresholds after the softmax": changed(
            LOAD,
            (
                "    ranked =",
                "    e = np.exp(noisy)\n    noisy = e / e.sum(axis=1, keepdims=True)\n    ranked =",
            ),
        ),
        "noisy logits in the numerator": changed(LOAD, ("Phi((clean -", "Phi((noisy -")),
        "a count": changed(LOAD, ("P = Phi((clean - threshold) / sigma)", "P = inside")),
        "padding counted": changed(
            LOAD, ("clean, sigma, noisy = clean[valid], sigma[valid], noisy[valid]", "pass")
        ),
        "padding times 0": changed(
            LOAD,
            ("clean, sigma, noisy = clean[valid], sigma[valid], noisy[valid]", "pass"),
            ("np.full(E, N)", "np.full(E, valid.sum())"),
            ("return P.sum", "return (P * valid[:, None]).sum"),
        ),
        "k = E counts padding": changed(
            LOAD,
            ("    N, E = clean.shape", "    E = clean.shape[1]"),
            ("np.full(E, N)", "np.full(E, len(valid))"),
        ),
        "padding set to 0": changed(
            LOAD,
            (
                "clean, sigma, noisy = clean[valid], sigma[valid], noisy[valid]",
                "clean, noisy = clean * valid[:, None], noisy * valid[:, None]",
            ),
        ),
        "k = E is forgotten": changed(LOAD, ("    if k == E:\n        return np.full(E, N)\n", "")),
        "variance for deviation": changed(LOAD, ("/ sigma)", "/ np.sqrt(sigma))")),
    },
}
BANK["q5_load_backward"] = {
    "right": [
        LOAD_BACKWARD,
        """
def load_backward(dload, clean, sigma, noise, k):
    N, E = clean.shape
    dclean, dsigma = np.zeros((N, E), np.float32), np.zeros((N, E), np.float32)
    for n in range(N):
        noisy = clean[n] + sigma[n] * noise[n]
        for i in range(E):
            rivals = [j for j in range(E) if j != i]
            r = sorted(rivals, key=lambda j: noisy[j])[-k]
            z = (clean[n, i] - noisy[r]) / sigma[n, i]
            g = dload[i] * 0.3989422804 * np.exp(-z * z / 2) / sigma[n, i]
            dclean[n, i] += g
            dsigma[n, i] -= g * z
            dclean[n, r] -= g
            dsigma[n, r] -= g * noise[n, r]
    return dclean, dsigma
""",
    ],
    "wrong": {
        "the threshold held": LOAD_BACKWARD[: LOAD_BACKWARD.index("    to_runner_up")]
        + "    return dclean, dsigma\n",
        "the threshold's noise forgotten": LOAD_BACKWARD[
            : LOAD_BACKWARD.index("    dsigma[rows, runner_up]")
        ]
        + "    return dclean, dsigma\n",
        "k-th of all": changed(
            LOAD_BACKWARD,
            (
                "last, runner_up = order[:, k - 1], order[:, k]",
                "last = runner_up = order[:, k - 1]",
            ),
        ),
        "each rival counts once": """
def load_backward(dload, clean, sigma, noise, k):
    noisy, rows = clean + sigma * noise, np.arange(len(clean))[:, None]
    order = np.argsort(-noisy, axis=1)
    rank = np.argsort(order, axis=1)
    rival = np.where(rank < k, order[:, k : k + 1], order[:, k - 1 : k])
    z = (clean - noisy[rows, rival]) / sigma
    dz = dload * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    dnoisy = np.zeros(clean.shape)
    dnoisy[rows, rival] -= dz / sigma
    return dz / sigma + dnoisy, -dz * z / sigma + dnoisy * noise
""",
        "the threshold's clean logit held": changed(
            LOAD_BACKWARD,
            ("dclean[rows, last] += to_last", "pass"),
            ("dclean[rows, runner_up] += to_runner_up", "pass"),
        ),
        "no 1/σ": changed(LOAD_BACKWARD, ("/ np.sqrt(2 * np.pi) / sigma", "/ np.sqrt(2 * np.pi)")),
        "no factor in the density": changed(LOAD_BACKWARD, (" / np.sqrt(2 * np.pi)", "")),
        "the sign of dsigma": changed(
            LOAD_BACKWARD, ("slope.copy(), -slope * z", "slope.copy(), slope * z")
        ),
        "the mean over tokens": changed(
            LOAD_BACKWARD,
            ("/ np.sqrt(2 * np.pi) / sigma", "/ np.sqrt(2 * np.pi) / sigma / len(clean)"),
        ),
    },
}

# --- Balance --------------------------------------------------------------------------------------

CV = """
def cv_squared(v):
    E, m = len(v), v.mean()
    if E == 1 or m == 0:
        return 0.0, np.zeros(E)
    var = np.var(v)
    dvar = 2 * (v - m) / E
    dm = np.ones(E) / E
    return var / m**2, dvar / m**2 - 2 * var / m**3 * dm
"""
SWITCH = """
def switch_loss(logits, k, valid):
    rows = logits[valid]
    N, E = rows.shape
    choice = np.argsort(-rows, axis=1)[:, :k]
    f = np.bincount(choice.ravel(), minlength=E) / (N * k)
    e = np.exp(rows - rows.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    P = p.mean(axis=0)
    dlogits = np.zeros(logits.shape)
    dlogits[valid] = E * p * (f - (p @ f)[:, None]) / N
    return E * (f * P).sum(), dlogits
"""
Z = """
def z_loss(logits, valid):
    log_z = np.logaddexp.reduce(logits, axis=1, keepdims=True)
    p = np.exp(logits - log_z)
    N = valid.sum()
    counts = valid[:, None] / N
    return (counts * log_z**2).sum(), counts * 2 * log_z * p
"""

BANK["q6_cv"] = {
    "right": [
        CV,
        """
def cv_squared(v):
    E, total = len(v), float(v.sum())
    if total == 0:
        return 0, np.zeros(E, np.float32)
    share = (v / total).astype(np.float64)  # CV² = E Σ share² − 1
    value = E * (share**2).sum() - 1
    return max(value, 0), [2 * E * (s - (share**2).sum()) / total for s in share]
""",
    ],
    "wrong": {
        "ddof = 1": changed(
            CV, ("np.var(v)", "np.var(v, ddof=1)"), ("(v - m) / E", "(v - m) / (E - 1)")
        ),
        "divided by the mean": changed(
            CV,
            (
                "return var / m**2, dvar / m**2 - 2 * var / m**3 * dm",
                "return var / m, dvar / m - var / m**2 * dm",
            ),
        ),
        "the root": changed(CV, ("return var / m**2,", "return np.sqrt(var) / m,")),
        "through the standard deviation": changed(
            CV,
            (
                "return var / m**2, dvar / m**2 - 2 * var / m**3 * dm",
                "std = np.sqrt(var)\n    dcv = dvar / (2 * std) / m - std / m**2 * dm\n"
                "    return (std / m) ** 2, 2 * std / m * dcv",
            ),
        ),
        "the mean held": changed(CV, (" - 2 * var / m**3 * dm", "")),
        "gradient E times too large": changed(
            CV, ("dvar / m**2 - 2 * var / m**3 * dm", "E * (dvar / m**2 - 2 * var / m**3 * dm)")
        ),
        "zeros are forgotten": changed(CV, ("E == 1 or m == 0", "E == 1")),
        "a small number in the denominator": changed(
            CV, ("    if E == 1", "    m = m + 1e-2\n    if E == 1")
        ),
    },
}
BANK["q7_switch"] = {
    "right": [
        SWITCH,
        """
def switch_loss(logits, k, valid):
    N, E = int(valid.sum()), logits.shape[1]
    f, P = np.zeros(E), np.zeros(E)
    probs = {}
    for n in np.flatnonzero(valid):
        a = logits[n].astype(np.float32)
        for i in sorted(range(E), key=lambda j: -logits[n, j])[:k]:
            f[i] += 1 / (k * N)
        probs[n] = np.exp(a - max(a)) / sum(np.exp(a - max(a)))
        P += probs[n] / N
    dlogits = np.zeros(logits.shape, np.float32)
    for n, p in probs.items():
        dlogits[n] = (np.diag(p) - np.outer(p, p)) @ (E * f / N)
    return float(E * f @ P), dlogits
""",
    ],
    "wrong": {
        "one maximum for all tokens": changed(
            SWITCH, ("rows.max(axis=1, keepdims=True)", "rows.max()")
        ),
        "no maximum subtracted": changed(
            SWITCH, ("rows - rows.max(axis=1, keepdims=True)", "rows")
        ),
        "f as a share of tokens": changed(SWITCH, ("/ (N * k)", "/ N")),
        "no E": changed(SWITCH, ("= E * p", "= p"), ("return E * ", "return ")),
        "gradient N times too large": changed(SWITCH, ("[:, None]) / N", "[:, None])")),
        "padding counted": changed(
            SWITCH,
            ("rows = logits[valid]", "valid = np.ones(len(logits), bool)\n    rows = logits"),
        ),
        "padding set to zero": changed(
            SWITCH,
            (
                "rows = logits[valid]",
                "rows = logits * valid[:, None]\n    valid = np.ones(len(logits), bool)",
            ),
        ),
        "f from the best expert only": changed(
            SWITCH, ("[:, :k]", "[:, :1]"), ("/ (N * k)", "/ N")
        ),
        "P of the kept experts only": changed(
            SWITCH,
            (
                "    P = p",
                "    kept = np.zeros(rows.shape, bool)\n"
                "    np.put_along_axis(kept, choice, True, axis=1)\n"
                "    P = (p * kept)",
            ),
        ),
        "f as mean probability": changed(
            SWITCH,
            ("f = np.bincount(choice.ravel(), minlength=E) / (N * k)", "f = 0"),
            ("    dlogits = np.z", "    f = P\n    dlogits = np.z"),
        ),
        "gradient of the probabilities": changed(
            SWITCH, ("E * p * (f - (p @ f)[:, None]) / N", "E * f / N")
        ),
        "importance: the kept weights for f": changed(
            SWITCH,
            (
                "    P = p",
                "    f = np.bincount(choice.ravel(), np.take_along_axis(p, choice, 1).ravel(), E)\n"
                "    f = f / f.sum()\n    P = p",
            ),
        ),
    },
}
BANK["q8_z_loss"] = {
    "right": [
        Z,
        """
def z_loss(logits, valid):
    value, dlogits = 0.0, np.zeros(logits.shape, np.float32)
    tokens = np.flatnonzero(valid)
    for n in tokens:
        a = logits[n].astype(np.float32)
        e = np.exp(a - a.max())
        log_z = a.max() + np.log(e.sum())
        value += log_z**2 / len(tokens)
        dlogits[n] = 2 * log_z * e / e.sum() / len(tokens)
    return [value, dlogits]
""",
    ],
    "wrong": {
        "padding set to zero": changed(
            Z,
            ("    log_z =", "    logits = logits * valid[:, None]\n    log_z ="),
            ("valid[:, None] / N", "1 / len(logits)"),
        ),
        "padding counted in N": changed(Z, ("N = valid.sum()", "N = len(logits)")),
        "gradient N times too large": changed(
            Z, ("counts * 2 * log_z * p", "counts * N * 2 * log_z * p")
        ),
        "a sum instead of the mean": changed(Z, ("valid[:, None] / N", "valid[:, None]")),
        "not squared": changed(
            Z, ("counts * log_z**2", "counts * log_z"), ("counts * 2 * log_z * p", "counts * p")
        ),
        "of log probabilities": changed(
            Z,
            (
                "    log_z =",
                "    logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)\n"
                "    log_z =",
            ),
        ),
        "one maximum for all tokens": changed(
            Z,
            (
                "np.logaddexp.reduce(logits, axis=1, keepdims=True)",
                "logits.max() + np.log(np.exp(logits - logits.max()).sum(1, keepdims=True))",
            ),
        ),
        "overflow": changed(
            Z,
            (
                "np.logaddexp.reduce(logits, axis=1, keepdims=True)",
                "np.log(np.exp(logits).sum(axis=1, keepdims=True))",
            ),
        ),
        "mean of the squared logits": changed(
            Z, ("(counts * log_z**2).sum()", "(counts * logits**2).sum()")
        ),
        "without the softmax": changed(
            Z, ("counts * 2 * log_z * p", "counts * 2 * log_z * np.ones(p.shape)")
        ),
    },
}
