"""Assignment 6: right answers that differ from the solution; mistakes, also of public code."""

from moe_np.coursework.bank import changed, template

_rotate = template(
    """
def rotate(x, positions, theta):
    T, H, d = x.shape
    freq = {freq}
    angle = {angle}
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = {halves}
    y = np.empty({like})
    {put}
    return y
""",
    freq="float(theta) ** (-2 * np.arange(d // 2) / d)",
    angle="positions[:, None] * freq",
    halves="x[..., : d // 2], x[..., d // 2 :]",
    like="x.shape",
    put="y[..., : d // 2], y[..., d // 2 :] = a * c - b * s, b * c + a * s",
)
BANK = {
    "q1_rotate": {
        "right": [
            _rotate(like="x.shape, np.float32"),
            """
def rotate(x, positions, theta):
    half = x.shape[-1] // 2
    z = x[..., :half] + 1j * x[..., half:]
    z = z * np.exp(1j * np.outer(positions, float(theta) ** (-np.arange(half) / half)))[:, None]
    return np.concatenate([z.real, z.imag], axis=-1).tolist()
""",
        ],
        "wrong": {
            "pairs of neighbours (errata 21)": _rotate(
                halves="x[..., ::2], x[..., 1::2]",
                put="y[..., ::2], y[..., 1::2] = a * c - b * s, b * c + a * s",
            ),
            "neighbours in, halves out": _rotate(halves="x[..., ::2], x[..., 1::2]"),
            "turned the other way": _rotate(
                put="y[..., : d // 2], y[..., d // 2 :] = a * c + b * s, b * c - a * s"
            ),
            "angles in float32 (errata 21)": _rotate(
                angle="positions[:, None].astype(np.float32) * freq.astype(np.float32)"
            ),
            "rows counted, positions not read": _rotate(angle="np.arange(T)[:, None] * freq"),
            "positions from 0": _rotate(angle="(positions - positions.min())[:, None] * freq"),
            "the sign of a position lost": _rotate(angle="abs(positions)[:, None] * freq"),
            "−i/d in place of −2i/d": _rotate(freq="float(theta) ** (-np.arange(d // 2) / d)"),
            "theta is always 10000": _rotate(freq="10000.0 ** (-2 * np.arange(d // 2) / d)"),
            "frequencies growing": _rotate(freq="float(theta) ** (2 * np.arange(d // 2) / d)"),
            "the first half twice": _rotate(
                put="a = y[..., : d // 2] = a * c - b * s\n    y[..., d // 2 :] = b * c + a * s"
            ),
        },
    },
}

# --- attention ------------------------------------------------------------------------------------

TURN = """
def turn(x, c, s):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * c[:, None] - b * s[:, None], b * c[:, None] + a * s[:, None]], -1)
"""
_attention = template(
    TURN
    + """
def attention(q, k, v, valid, cos, sin):
    T, Hq, d = q.shape
    group = Hq // k.shape[1]
    q, k = {turned}
    out = np.zeros(q.shape)
    for h in range(Hq):
        for t in range(T):
            keys = {keys}
            if len(keys):
                s = k[keys, {head}] @ q[t, h] / {scale}
                e = {e}
                out[t, h] = e @ v[keys, {head}] / {total}
    return out
""",
    turned="turn(q, cos, sin), turn(k, cos, sin)",
    keys="np.flatnonzero(valid[: t + 1])",
    head="h // group",
    scale="np.sqrt(d)",
    e="np.exp(s - s.max())",
    total="e.sum()",
)
_masked = template(
    TURN
    + """
def attention(q, k, v, valid, cos, sin):
    T, Hq, d = q.shape
    q, k = turn(q, cos, sin), turn(k, cos, sin)
    k, v = (np.repeat(a, Hq // a.shape[1], axis=1) for a in (k, v))
    s = np.einsum("thd,shd->hts", q, k) / np.sqrt(d)
    seen = np.tril(np.ones((T, T), bool)) & valid{axis}
    {mask}
    return np.einsum("hts,shd->thd", p, v)
""",
    axis="",
    mask="""s = np.where(seen, s, -np.inf)
    top = s.max(axis=-1, keepdims=True)
    p = np.exp(s - np.where(top > -np.inf, top, 0))
    total = p.sum(axis=-1, keepdims=True)
    p = p / np.where(total > 0, total, 1)""",
)
BANK["q2_attention"] = {
    "right": [
        _attention(),
        _masked(),
        _masked() + "\n_a = attention\ndef attention(*args):\n    return _a(*args).tolist()\n",
        """
def attention(q, k, v, valid, cos, sin):
    T, Hq, d = q.shape
    Hk, half = k.shape[1], d // 2
    c, s = cos[:, None], sin[:, None]
    q, k = (np.concatenate([a[..., :half] * c - a[..., half:] * s,
                            a[..., half:] * c + a[..., :half] * s], -1) for a in (q, k))
    q = q.reshape(T, Hk, Hq // Hk, d).astype(np.float64)
    scores = np.einsum("tngd,snd->ngts", q, k) / d ** 0.5
    seen = np.tri(T, dtype=bool) & valid[None]
    out = np.zeros((T, Hk, Hq // Hk, d), np.float32)
    for t in range(T):
        if seen[t].any():
            a = scores[..., t, seen[t]]
            p = np.exp(a - a.max(-1, keepdims=True))
            out[t] = np.einsum("ngs,snd->ngd", p / p.sum(-1, keepdims=True), v[seen[t]])
    return out.reshape(T, Hq, d)
""",
    ],
    "wrong": {
        "not causal": _attention(keys="np.flatnonzero(valid)"),
        "a position does not see itself": _attention(keys="np.flatnonzero(valid[:t])"),
        "padding is seen": _attention(keys="np.arange(t + 1)"),
        "key heads tiled, not repeated (errata 22)": _attention(head="h % k.shape[1]"),
        "the first key head for all": _attention(head="0"),
        "scores divided by d": _attention(scale="d"),
        "scores not divided": _attention(scale="1"),
        "no rotation": _attention(turned="q, k"),
        "only the queries are turned": _attention(turned="turn(q, cos, sin), k"),
        "the keys are turned back": _attention(turned="turn(q, cos, sin), turn(k, cos, -sin)"),
        "no maximum taken out": _attention(e="np.exp(s)"),
        "a small number in the denominator": _attention(total="(e.sum() + 1e-2)"),
        "0/0 where nothing is seen (errata 24)": _masked(
            mask="""s = np.where(seen, s, -np.inf)
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)"""
        ),
        "a uniform row where nothing is seen (errata 24)": _masked(
            mask="""s = np.where(seen, s, -1e300)
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)"""
        ),
        "a mask of −10⁹": _masked(
            mask="""s = np.where(seen, s, -1e9)
    p = np.exp(s - s.max(axis=-1, keepdims=True)) * seen.any(axis=1)[:, None]
    p = p / np.maximum(p.sum(axis=-1, keepdims=True), 1e-30)"""
        ),
        "hidden scores set to 0": _masked(
            mask="""s = np.where(seen, s, 0)
    p = np.exp(s - s.max(axis=-1, keepdims=True)) * seen.any(axis=1)[:, None]
    p = p / np.maximum(p.sum(axis=-1, keepdims=True), 1e-30)"""
        ),
        "padding hides queries, too": _masked(axis=" & valid[:, None]"),
        "padding hides queries, not keys": _masked(axis="[:, None]"),
    },
}

_attention_back = template(
    TURN
    + """
def attention_backward(dout, q, k, v, valid, cos, sin):
    T, Hq, d = q.shape
    Hk = k.shape[1]
    group = Hq // Hk
    q, k = turn(q, cos, sin), turn(k, cos, sin)
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for h in range(Hq):
        n = {head}
        s = q[:, h] @ k[:, n].T / np.sqrt(d)
        s = np.where(np.tril(np.ones((T, T), bool)) & valid, s, -np.inf)
        p = np.exp(s - np.maximum(s.max(axis=1, keepdims=True), -1e300))
        p /= {total}
        dp = dout[:, h] @ v[:, n].T
        ds = {ds}
        dq[:, h] = ds @ k[:, n] {scale}
        dk[:, n] {to} ds.T @ q[:, h] {scale}
        dv[:, n] {to} {dv}
    return {result}
""",
    head="h // group",
    total="np.maximum(p.sum(axis=1, keepdims=True), 1e-30)",
    ds="p * (dp - (p * dp).sum(axis=1, keepdims=True))",
    scale="/ np.sqrt(d)",
    to="+=",
    dv="p.T @ dout[:, h]",
    result="turn(dq, cos, -sin), turn(dk, cos, -sin), dv",
)
BANK["q3_attention_backward"] = {
    "right": [
        _attention_back(),
        _attention_back(
            result="tuple(a.astype(np.float32) for a in "
            "(turn(dq, cos, -sin), turn(dk, cos, -sin), dv))"
        ),
        _attention_back(
            ds="np.einsum('ts,tsr,tr->ts', np.ones_like(p), "
            "np.eye(T) * p[:, :, None] - p[:, :, None] * p[:, None], dp)"
            " if T < 9 else p * (dp - (p * dp).sum(axis=1, keepdims=True))"
        ),
    ],
    "wrong": {
        "right, but by differences": _attention().replace("def attention", "def _forward")
        + """
def attention_backward(dout, *inputs):
    def slope(n):
        grad = np.zeros(inputs[n].shape)
        for i in np.ndindex(grad.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [a.copy() for a in inputs]
                moved[n][i] += h
                ends.append((dout * _forward(*moved)).sum())
            grad[i] = (ends[0] - ends[1]) / 2e-5
        return grad
    return slope(0), slope(1), slope(2)
""",
        "gradients of the turned": _attention_back(result="dq, dk, dv"),
        "turned once more": _attention_back(result="turn(dq, cos, sin), turn(dk, cos, sin), dv"),
        "the values are turned, too": _attention_back(
            result="turn(dq, cos, -sin), turn(dk, cos, -sin), turn(dv, cos, -sin)"
        ),
        "only the queries are turned back": _attention_back(result="turn(dq, cos, -sin), dk, dv"),
        "the last query of a group wins (errata 22)": _attention_back(to="="),
        "key heads tiled (errata 22)": _attention_back(head="h % Hk"),
        "a mean over the group": _attention_back(
            result="turn(dq, cos, -sin), turn(dk, cos, -sin) / group, dv / group"
        ),
        "p (1 − p) for the softmax": _attention_back(ds="p * (1 - p) * dp"),
        "p dp, without the sum": _attention_back(ds="p * dp"),
        "the sum over queries": _attention_back(ds="p * (dp - (p * dp).sum(axis=0))"),
        "without √d": _attention_back(scale=""),
        "dv from the scores": _attention_back(dv="ds.T @ dout[:, h]"),
        "0/0 where nothing is seen (errata 24)": _attention_back(
            total="p.sum(axis=1, keepdims=True)"
        ),
    },
}

# --- norm and block -------------------------------------------------------------------------------

_norm = template(
    """
def norm_backward(dy, x, g, eps):
    D = x.shape[-1]
    root = {root}
    dx = {dx}
    dg = {dg}
    return dx, dg
""",
    root="np.sqrt((x ** 2).sum(axis=-1, keepdims=True) / D + eps)",
    dx="dy * g / root - x * (dy * g * x).sum(axis=-1, keepdims=True) / (D * root ** 3)",
    dg="(dy * x / root).reshape(-1, D).sum(axis=0)",
)
BANK["q4_norm"] = {
    "right": [
        _norm(),
        _norm(dg="(dy * x / root).reshape(-1, D).sum(axis=0).astype(np.float32)"),
        """
def norm_backward(dy, x, g, eps):
    rows, out = np.atleast_2d(x.reshape(-1, x.shape[-1])), []
    D, dg = x.shape[-1], 0.0
    for a, b in zip(rows, dy.reshape(rows.shape)):
        r = (a @ a / D + eps) ** -0.5
        J = r * np.diag(g) - r ** 3 / D * np.outer(a, g * a)
        out.append(J @ b)
        dg = dg + b * a * r
    return np.reshape(out, x.shape), dg
""",
    ],
    "wrong": {
        "the root is held": _norm(dx="dy * g / root"),
        "eps outside of the root": _norm(
            root="np.sqrt((x ** 2).sum(axis=-1, keepdims=True) / D) + eps"
        ),
        "no eps": _norm(root="np.sqrt((x ** 2).sum(axis=-1, keepdims=True) / D)"),
        "eps in the root, not in its gradient": _norm(
            dx="dy * g / root - x * (dy * g * x).sum(axis=-1, keepdims=True) "
            "/ (D * root * np.maximum((x ** 2).mean(axis=-1, keepdims=True), 1e-30))"
        ),
        "a layer norm: the mean taken out": _norm(
            dx="(lambda z: z - z.mean(axis=-1, keepdims=True))"
            "(dy * g / root - x * (dy * g * x).sum(axis=-1, keepdims=True) / (D * root ** 3))"
        ),
        "without D": _norm(
            dx="dy * g / root - x * (dy * g * x).sum(axis=-1, keepdims=True) / root ** 3"
        ),
        "a sum in place of the mean": _norm(
            root="np.sqrt((x ** 2).sum(axis=-1, keepdims=True) + eps)"
        ),
        "the gain left out of the second term": _norm(
            dx="dy * g / root - x * (dy * x).sum(axis=-1, keepdims=True) / (D * root ** 3)"
        ),
        "one root for all rows": _norm(root="np.sqrt((x ** 2).mean() + eps)"),
        "dg of x that is not normed": _norm(dg="(dy * x).reshape(-1, D).sum(axis=0)"),
        "dg a mean over rows": _norm(dg="(dy * x / root).reshape(-1, D).mean(axis=0)"),
        "dg summed over the first axis only": _norm(dg="(dy * x / root).sum(axis=0)"),
        "dg with the gain": _norm(dg="(dy * g * x / root).reshape(-1, D).sum(axis=0)"),
        "fails on one axis": _norm(
            dg="(dy * x / root).sum(axis=tuple(range(len(x.shape) - 1)))"
            ".reshape(D) if x.shape[1] else None"
        ),
    },
}

_block = template(
    """
def back(dy, x, g):
    r = (np.mean(x * x, axis=1, keepdims=True) + 1e-5) ** -0.5
    dn = dy * g
    return r * dn - x * r ** 3 * np.mean(dn * x, axis=1, keepdims=True), (dy * x * r).sum(axis=0)

def block_backward(params, x, mix, choice, dout):
    g1, wv, g2, router, w1, w2 = (params[n] for n in ("g1", "wv", "g2", "router", "w1", "w2"))
    T, k = choice.shape
    h = x * (np.mean(x * x, axis=1, keepdims=True) + 1e-5) ** -0.5 * g1
    a = x + mix @ h @ wv
    u = a * (np.mean(a * a, axis=1, keepdims=True) + 1e-5) ** -0.5 * g2
    logits = u @ router
    grads = {{n: np.zeros(p.shape) for n, p in params.items()}}
    du = np.zeros(x.shape)
    for t in range(T):
        e = {e}
        w = e / {total}
        dw = np.zeros(k)
        for j, m in enumerate(choice[t]):
            z = np.maximum(u[t] @ w1[m], 0)
            dw[j] = dout[t] @ (z @ w2[m])
            dy = {dy}
            dz = (w2[m] @ dy) * {slope}
            grads["w1"][m] {to} np.outer(u[t], dz)
            grads["w2"][m] {to} np.outer(z, dy)
            du[t] += w1[m] @ dz
        dl = {dl}
        {router}
    da, grads["g2"] = {norm2}
    da = {residual}
    grads["wv"] = {wv}
    dh = {dh}
    dx, grads["g1"] = back(dh, x, g1)
    return {dx}, grads
""",
    e="np.exp(logits[t, choice[t]] - logits[t, choice[t]].max())",
    total="e.sum()",
    dy="w[j] * dout[t]",
    slope="(z > 0)",
    to="+=",
    dl="w * (dw - w @ dw)",
    router="""grads["router"][:, choice[t]] += np.outer(u[t], dl)
        du[t] += router[:, choice[t]] @ dl""",
    norm2="back(du, a, g2)",
    residual="da + dout",
    wv="(mix @ h).T @ da",
    dh="mix.T @ da @ wv.T",
    dx="dx + da",
)
BANK["q5_block"] = {
    "right": [
        _block(),
        _block(dx="(dx + da).astype(np.float32)"),
        _block(
            dl="w * dw - w * sum(w * dw)",
            wv="h.T @ (mix.T @ da)",
            dh="mix.T @ (da @ wv.T)",
        ),
    ],
    "wrong": {
        "right, but by differences": """
def forward(p, x, mix, choice):
    n = lambda a, g: a / np.sqrt((a * a).mean(axis=1, keepdims=True) + 1e-5) * g
    a = x + mix @ (n(x, p["g1"]) @ p["wv"])
    u = n(a, p["g2"])
    e = np.take_along_axis(u @ p["router"], choice, axis=1)
    e = np.exp(e - e.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    out = a.copy()
    for j in range(choice.shape[1]):
        z = np.maximum(np.einsum("td,tdh->th", u, p["w1"][choice[:, j]]), 0)
        out += e[:, j, None] * np.einsum("th,thd->td", z, p["w2"][choice[:, j]])
    return out

def block_backward(params, x, mix, choice, dout):
    everything = {**params, "x": x}
    grads = {name: np.zeros(p.shape) for name, p in everything.items()}
    for name, p in everything.items():
        for i in np.ndindex(p.shape):
            ends = []
            for h in (1e-6, -1e-6):
                moved = {n: a.copy() for n, a in everything.items()}
                moved[name][i] += h
                ends.append((dout * forward(moved, moved["x"], mix, choice)).sum())
            grads[name][i] = (ends[0] - ends[1]) / 2e-6
    return grads.pop("x"), grads
""",
        "the second residual is forgotten": _block(residual="da"),
        "the first residual is forgotten": _block(dx="dx"),
        "the first residual has dout only": _block(dx="dx + dout"),
        "nothing through the router to u": _block(
            router='grads["router"][:, choice[t]] += np.outer(u[t], dl)'
        ),
        "the router learns nothing": _block(router="pass"),
        "the norm is passed by": _block(norm2="du * g2, (du * a).sum(axis=0)"),
        "the norm of the input, not of a": _block(norm2="back(du, x, g2)"),
        "weights left out of the experts": _block(dy="dout[t]"),
        "the softmax over all experts (errata 3)": _block(
            e="np.exp(logits[t, choice[t]] - logits[t].max())",
            total="np.exp(logits[t] - logits[t].max()).sum()",
        ),
        "weights held in the softmax": _block(dl="w * dw"),
        "p (1 − p) for the softmax": _block(dl="w * (1 - w) * dw"),
        "no ReLU in the gradient": _block(slope="1"),
        "the last token of an expert wins (errata 12)": _block(to="="),
        "attention is not turned round": _block(dh="mix @ da @ wv.T"),
        "wv without attention": _block(wv="h.T @ da"),
        "no maximum taken out": _block(e="np.exp(logits[t, choice[t]])"),
    },
}

# --- loss and step --------------------------------------------------------------------------------

_loss = template(
    """
def loss_and_gradient(logits, targets):
    B, T, V = logits.shape
    loss, dlogits = 0.0, np.zeros(logits.shape)
    n = {n}
    for b in range(B):
        for t in range(T):
            y = targets[b, t]
            {skip}
            s = logits[b, t]
            {softmax}
            loss += {loss}
            dlogits[b, t] = {scale} * (p - (np.arange(V) == y))
    return {result}
""",
    n="max(1, (targets >= 0).sum())",
    skip="if y < 0: continue",
    softmax="e = np.exp(s - s.max()); p = e / e.sum()",
    loss="np.log(e.sum()) - (s[y] - s.max())",
    scale="1 / n",
    result="loss / n, dlogits",
)
BANK["q6_loss"] = {
    "right": [
        _loss(),
        _loss(result="np.float32(loss / n), dlogits.astype(np.float32)"),
        """
def loss_and_gradient(logits, targets):
    rows, y = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    keep = np.flatnonzero(y != -1)
    d = np.zeros(rows.shape)
    if len(keep) == 0:
        return 0.0, d.reshape(logits.shape)
    s = rows[keep] - rows[keep].max(1)[:, None]
    log_p = s - np.logaddexp.reduce(s, axis=1)[:, None]
    d[keep] = np.exp(log_p)
    d[keep, y[keep]] -= 1
    return -log_p[range(len(keep)), y[keep]].mean(), (d / len(keep)).reshape(logits.shape)
""",
    ],
    "wrong": {
        "a mean over all positions (errata 26)": _loss(n="targets.size"),
        "a mean of the means of the sequences": """
def loss_and_gradient(logits, targets):
    loss, dlogits, B = 0.0, np.zeros(logits.shape), sum((y >= 0).any() for y in targets)
    for b, y in enumerate(targets):
        n = (y >= 0).sum()
        for t in np.flatnonzero(y >= 0):
            e = np.exp(logits[b, t] - logits[b, t].max())
            p = e / e.sum()
            loss += (np.log(e.sum()) - (logits[b, t, y[t]] - logits[b, t].max())) / n / B
            dlogits[b, t] = (p - (np.arange(len(p)) == y[t])) / n / B
    return loss, dlogits
""",
        "a sum in place of the mean": _loss(n="1"),
        "the gradient of the sum (errata 16)": _loss(scale="1"),
        "the loss of the sum (errata 16)": _loss(result="loss, dlogits"),
        "padding is the last class": _loss(skip="pass"),
        "0/0 without targets (errata 26)": _loss(n="np.float64((targets >= 0).sum())"),
        "padding times 0": """
def loss_and_gradient(logits, targets):
    valid = targets >= 0
    n = max(1, valid.sum())
    s = logits - logits.max(axis=-1, keepdims=True)
    log_p = s - np.log(np.exp(s).sum(axis=-1, keepdims=True))
    hot = (np.arange(logits.shape[-1]) == targets[..., None])
    of_target = np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], -1)[..., 0]
    return -(of_target * valid).sum() / n, (np.exp(log_p) - hot) * valid[..., None] / n
""",
        "the logarithm of the softmax": _loss(loss="-np.log(p[y])"),
        "the logarithm of at least 1e-12": _loss(loss="-np.log(np.maximum(p[y], 1e-12))"),
        "no maximum taken out": _loss(
            softmax="e = np.exp(s); p = e / e.sum()", loss="np.log(e.sum()) - s[y]"
        ),
        "one maximum for all": _loss(
            softmax="e = np.exp(s - np.nanmax(logits[targets >= 0])); p = e / e.sum()",
            loss="np.log(e.sum()) - (s[y] - np.nanmax(logits[targets >= 0]))",
        ),
        "bits": _loss(result="loss / n / np.log(2), dlogits"),
        "the sign of the gradient": _loss(result="loss / n, -dlogits"),
        "class 0 is padding, too": _loss(skip="if y <= 0: continue"),
    },
}

_step = template(
    """
def training_step(params, parts, m, v, t, lr, weight_decay, max_norm):
    {parts}
    total = {total}
    g = {{k: {mean} for k in params}}
    norm = {norm}
    {clip}
    new, m, v = {{}}, dict(m), dict(v)
    for k, p in params.items():
        {gradient}
        m[k] = 0.9 * m[k] + 0.1 * g[k]
        v[k] = {v}
        update = {update}
        {decay}
        new[k] = {new}
        {after}
    return new, m, v
""",
    parts="parts = [(d, n) for d, n in parts if n]",
    total="sum(n for _, n in parts)",
    mean="sum(n * d[k] for d, n in parts) / total",
    norm="np.sqrt(sum(np.sum(a * a) for a in g.values()))",
    clip="if norm > max_norm: g = {k: a * (max_norm / norm) for k, a in g.items()}",
    gradient="pass",
    v="0.95 * v[k] + 0.05 * g[k] ** 2",
    update="m[k] / (1 - 0.9 ** t) / (np.sqrt(v[k] / (1 - 0.95 ** t)) + 1e-8)",
    decay="decay = 0.0 if k.startswith(('g', 'b')) else weight_decay",
    new="p * (1 - lr * decay) - lr * update",
    after="pass",
)
BANK["q7_step"] = {
    "right": [
        _step(),
        _step(
            new="p - lr * (update + decay * p)",
            clip=("g = {k: a * min(1.0, max_norm / max(norm, 1e-30)) for k, a in g.items()}"),
        ),
        _step(after="new[k], m[k], v[k] = (a.astype(np.float32) for a in (new[k], m[k], v[k]))"),
    ],
    "wrong": {
        "a mean of the parts (errata 26)": _step(mean="sum(d[k] for d, n in parts) / len(parts)"),
        "a sum of the parts": _step(mean="sum(d[k] for d, n in parts)"),
        "the sum over the tokens": _step(mean="sum(n * d[k] for d, n in parts)"),
        "nan of a part without tokens": _step(parts="pass"),
        "parts clipped, then added (errata 30)": _step(
            parts="""parts = [(d, n) for d, n in parts if n]
    def clipped(d):
        norm = np.sqrt(sum(np.sum(a * a) for a in d.values()))
        return {k: a * min(1, max_norm / max(norm, 1e-30)) for k, a in d.items()}
    parts = [(clipped(d), n) for d, n in parts]"""
        ),
        "a norm for each array (errata 30)": _step(
            clip="""norms = {k: np.sqrt(np.sum(a * a)) for k, a in g.items()}
    g = {k: a * min(1, max_norm / max(norms[k], 1e-30)) for k, a in g.items()}"""
        ),
        "each value clipped": _step(
            clip="g = {k: np.clip(a, -max_norm, max_norm) for k, a in g.items()}"
        ),
        "always scaled to max_norm": _step(
            clip="g = {k: a * max_norm / max(norm, 1e-30) for k, a in g.items()}"
        ),
        "not clipped": _step(clip="pass"),
        "L2 in the gradient, not AdamW": _step(
            gradient="""g[k] = g[k] + (0 if k[0] in 'gb' else weight_decay) * p""",
            new="p - lr * update",
        ),
        "everything decays (errata 28)": _step(decay="decay = weight_decay"),
        "the biases of experts decay (errata 28)": _step(
            decay="decay = weight_decay if p.ndim > 1 else 0"
        ),
        "only gains do not decay": _step(decay="decay = 0.0 if k == 'g' else weight_decay"),
        "decay without the learning rate": _step(new="p * (1 - decay) - lr * update"),
        "decay after the update": _step(new="(p - lr * update) * (1 - lr * decay)"),
        "experts without tokens stay (errata 29)": _step(
            after="""
        if p.ndim == 3:
            idle = np.abs(g[k]).sum(axis=(1, 2)) == 0
            new[k][idle] = p[idle]"""
        ),
        "no correction of the means": _step(update="m[k] / (np.sqrt(v[k]) + 1e-8)"),
        "t counted from 0": _step(
            update="m[k] / (1 - 0.9 ** (t + 1)) / (np.sqrt(v[k] / (1 - 0.95 ** (t + 1))) + 1e-8)"
        ),
        "0.999 in place of 0.95": _step(
            v="0.999 * v[k] + 0.001 * g[k] ** 2",
            update="m[k] / (1 - 0.9 ** t) / (np.sqrt(v[k] / (1 - 0.999 ** t)) + 1e-8)",
        ),
        "the means before the update are returned": changed(
            _step(),
            (
                "new, m, v = {}, dict(m), dict(v)",
                "new, before, m, v = {}, (m, v), dict(m), dict(v)",
            ),
            ("return new, m, v", "return new, *before"),
        ),
        "m and v swapped": _step().replace("return new, m, v", "return new, v, m"),
    },
}

# --- audit ----------------------------------------------------------------------------------------

PROPERTIES = """
def softmax(s):
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def audit(route):
    rng = np.random.default_rng(1)
    cases = {cases}
    for s, k, valid in cases:
        N, E = s.shape
        kept = s.copy()
        {first}choice, weight, loss = route(s, k, valid)
        {unchanged}
        {again}
        choice, weight = np.asarray(choice), np.asarray(weight)
        order = np.argsort(-s, axis=1, kind="stable")[:, :k]
        {choice}
        {weight}
        {padding}
        p = softmax(s)[valid]
        if len(p):
            f = np.bincount(order[valid].ravel(), minlength=E) / (k * len(p))
            {loss}
        else:
            {no_loss}
"""
_audit = template(
    PROPERTIES,
    cases="""[
        (rng.normal(size=(8, 5)), 2, np.arange(8) != 3),
        (np.zeros((3, 40)), 4, np.ones(3, bool)),
        (np.array([[900.0, -900, 0], [-900, 899, 0]]), 2, np.array([True, True])),
        (rng.normal(size=(1, 3)), 2, np.array([True])),
        (rng.normal(size=(5, 3)), 3, np.ones(5, bool)),
        (rng.normal(size=(5, 3)), 1, np.arange(5) > 0),
        (rng.normal(size=(4, 3)), 2, np.zeros(4, bool)),
    ]""",
    first="route(s, k, valid)\n        ",
    unchanged="assert np.array_equal(s, kept), 'changed'",
    again="again = route(s, k, valid); assert np.allclose(again[1], weight, atol=1e-6)",
    choice="assert np.array_equal(choice[valid], order[valid]), 'choice'",
    weight="""assert weight.shape == (N, k), 'shape'
        right = softmax(np.take_along_axis(s, order, 1))
        assert np.allclose(weight[valid], right[valid], atol=1e-5)""",
    padding="assert not weight[~valid].any(), 'padding'",
    loss="assert abs(loss - E * f @ p.mean(axis=0)) < 1e-4, 'loss'",
    no_loss="assert loss == 0, 'no valid token'",
)
BANK["q8_audit"] = {
    "right": [
        _audit(),
        _audit(first="for _ in range(3): route(s, k, valid)\n        "),
    ],
    "wrong": {
        "tests nothing": "def audit(route):\n    pass",
        "always finds something": "def audit(route):\n    assert False, 'broken'",
        "passes the first of three": """
calls = []

def audit(route):
    calls.append(route)
    assert len(calls) % 3 == 1
""",
        "returns the outcome, asserts nothing": """
def audit(route):
    s = np.random.default_rng(0).normal(size=(6, 4))
    return np.allclose(np.sum(route(s, 2, np.ones(6, bool))[1], axis=1), 1)
""",
        "only sums and shapes": """
def audit(route):
    s = np.random.default_rng(0).normal(size=(6, 4))
    choice, weight, loss = route(s, 2, np.ones(6, bool))
    assert np.shape(choice) == np.shape(weight) == (6, 2)
    assert np.allclose(np.sum(weight, axis=1), 1)
""",
        "bits compared: finds float32": _audit(
            weight="""assert weight.shape == (N, k), 'shape'
        right = softmax(np.take_along_axis(s, order, 1))
        assert np.array_equal(weight[valid], right[valid])"""
        ),
        "wants arrays": _audit(unchanged="assert choice.shape == weight.shape"),
        "wants int64": _audit(
            unchanged="assert np.asarray(choice).dtype == np.int64\n"
            "        assert np.array_equal(s, kept), 'changed'"
        ),
        "looks at the choice of padding": _audit(choice="assert np.array_equal(choice, order)"),
        "no ties": changed(_audit(), ("np.zeros((3, 40))", "rng.normal(size=(3, 40))")),
        "no large logits": _audit(
            cases="""[
        (rng.normal(size=(8, 5)), 2, np.arange(8) != 3),
        (np.zeros((3, 40)), 4, np.ones(3, bool)),
        (rng.normal(size=(1, 3)), 2, np.array([True])),
        (rng.normal(size=(5, 3)), 3, np.ones(5, bool)),
        (rng.normal(size=(5, 3)), 1, np.arange(5) > 0),
        (rng.normal(size=(4, 3)), 2, np.zeros(4, bool)),
    ]"""
        ),
        "no padding": _audit(
            cases="""[
        (rng.normal(size=(8, 5)), 2, np.ones(8, bool)),
        (np.zeros((3, 40)), 4, np.ones(3, bool)),
        (np.array([[900.0, -900, 0], [-900, 899, 0]]), 2, np.array([True, True])),
        (rng.normal(size=(1, 3)), 2, np.array([True])),
        (rng.normal(size=(5, 3)), 3, np.ones(5, bool)),
        (rng.normal(size=(5, 3)), 1, np.ones(5, bool)),
    ]"""
        ),
        "k = E not tried": _audit(
            cases="""[
        (rng.normal(size=(8, 5)), 2, np.arange(8) != 3),
        (np.zeros((3, 40)), 4, np.ones(3, bool)),
        (np.array([[900.0, -900, 0], [-900, 899, 0]]), 2, np.array([True, True])),
        (rng.normal(size=(1, 3)), 2, np.array([True])),
        (rng.normal(size=(5, 3)), 1, np.arange(5) > 0),
        (rng.normal(size=(4, 3)), 2, np.zeros(4, bool)),
    ]"""
        ),
        "the loss not looked at": _audit(loss="pass", no_loss="pass"),
        "the loss without valid tokens not looked at": _audit(no_loss="pass"),
        "changed logits not looked at": _audit(unchanged="s = kept"),
        "one token not tried": _audit(
            cases="""[
        (rng.normal(size=(8, 5)), 2, np.arange(8) != 3),
        (np.zeros((3, 40)), 4, np.ones(3, bool)),
        (np.array([[900.0, -900, 0], [-900, 899, 0]]), 2, np.array([True, True])),
        (rng.normal(size=(5, 3)), 3, np.ones(5, bool)),
        (rng.normal(size=(5, 3)), 1, np.arange(5) > 0),
        (rng.normal(size=(4, 3)), 2, np.zeros(4, bool)),
    ]"""
        ),
        "weights of padding not looked at": _audit(padding="pass"),
    },
}
