"""Assignment 2: right answers that differ from the solution, and mistakes of students."""

from moe_np.coursework.bank import changed

BANK = {
    "q1_gaussian": {
        "right": [
            """
def gaussian_log_density(x, y, W, var):
    out = np.zeros((len(x), len(W)))
    for n in range(len(x)):
        for i in range(len(W)):
            for c in range(y.shape[1]):
                r = y[n, c] - x[n] @ W[i, :, c]
                out[n, i] += -r * r / (2 * var[i]) - np.log(np.sqrt(2 * np.pi * var[i]))
    return out
""",
            """
def gaussian_log_density(x, y, W, var):
    x, y, W, var = (v.astype(np.float32) for v in (x, y, W, var))
    mean = np.tensordot(x, W, axes=(1, 1))
    far = np.linalg.norm(y[:, None] - mean, axis=2)
    return -((far / np.sqrt(var)) ** 2) / 2 - y.shape[1] * (np.log(2 * np.pi) + np.log(var)) / 2
""",
        ],
        "wrong": {
            "the factor once, for any C": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return -0.5 * (far / var + np.log(2 * np.pi * var))
""",
            "no factor": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return -0.5 * far / var
""",
            "the variance taken for a standard deviation": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return -0.5 * (far / var**2 + y.shape[1] * np.log(2 * np.pi * var**2))
""",
            "logarithm of the density": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.log(np.exp(-0.5 * far / var) / (2 * np.pi * var) ** (y.shape[1] / 2))
""",
            "the density": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.exp(-0.5 * far / var) / (2 * np.pi * var) ** (y.shape[1] / 2)
""",
            "logarithm of a density of at least 1e-300": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    density = np.exp(-0.5 * far / var) / (2 * np.pi * var) ** (y.shape[1] / 2)
    return np.log(np.maximum(density, 1e-300))
""",
            "the first output only": """
def gaussian_log_density(x, y, W, var):
    far = (y[:, None, 0] - np.einsum("nd,ed->ne", x, W[:, :, 0])) ** 2
    return -0.5 * (far / var + y.shape[1] * np.log(2 * np.pi * var))
""",
            "mean over outputs": """
def gaussian_log_density(x, y, W, var):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).mean(axis=2)
    return -0.5 * (far / var + np.log(2 * np.pi * var))
""",
        },
    },
    "q2_classes": {
        "right": [
            """
def class_log_density(x, label, W):
    out = np.zeros((len(x), len(W)))
    for n, c in enumerate(label):
        for i, w in enumerate(W):
            totals = x[n] @ w
            out[n, i] = totals[c] - np.logaddexp.reduce(totals)
    return out
""",
            """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x.astype(np.float32), W.astype(np.float32))
    chosen = np.take_along_axis(totals, label[:, None, None], axis=2)[:, :, 0]
    top = totals.max(2)
    return -np.log(np.exp(totals - top[:, :, None]).sum(2)) - top + chosen
""",
        ],
        "wrong": {
            "label == number of the expert": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=2, keepdims=True)
    p = np.exp(totals) / np.exp(totals).sum(axis=2, keepdims=True)
    right = label[:, None] == np.arange(len(W))
    return np.log(np.where(right, p.max(axis=2), 1 - p.max(axis=2)) + 1e-300)
""",
            "softmax over the experts": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=1, keepdims=True)
    log_p = totals - np.log(np.exp(totals).sum(axis=1, keepdims=True))
    return log_p[np.arange(len(x)), :, label]
""",
            "no maximum subtracted": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    p = np.exp(totals) / np.exp(totals).sum(axis=2, keepdims=True)
    return np.log(p[np.arange(len(x)), :, label])
""",
            "the probability": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    e = np.exp(totals - totals.max(axis=2, keepdims=True))
    return (e / e.sum(axis=2, keepdims=True))[np.arange(len(x)), :, label]
""",
            "logarithm of the softmax": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    e = np.exp(totals - totals.max(axis=2, keepdims=True))
    return np.log(e / e.sum(axis=2, keepdims=True))[np.arange(len(x)), :, label]
""",
            "the most probable class instead of the label": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=2, keepdims=True)
    return -np.log(np.exp(totals).sum(axis=2))
""",
            "as many classes as the largest label": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=2, keepdims=True)
    log_p = totals - np.log(np.exp(totals).sum(axis=2, keepdims=True))
    return np.einsum("nec,nc->ne", log_p, np.eye(label.max() + 1)[label])
""",
            "the classes that occur, numbered anew": """
def class_log_density(x, label, W):
    label = np.unique(label, return_inverse=True)[1]
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=2, keepdims=True)
    log_p = totals - np.log(np.exp(totals).sum(axis=2, keepdims=True))
    return log_p[np.arange(len(x)), :, label]
""",
            "one maximum for the whole batch": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max()
    log_p = totals - np.log(np.exp(totals).sum(axis=2, keepdims=True))
    return log_p[np.arange(len(x)), :, label]
""",
            "one maximum for all experts": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=(1, 2), keepdims=True)
    log_p = totals - np.log(np.exp(totals).sum(axis=2, keepdims=True))
    return log_p[np.arange(len(x)), :, label]
""",
            "a sigmoid for each class": """
def class_log_density(x, label, W):
    totals = np.einsum("nd,edc->nec", x, W)[np.arange(len(x)), :, label]
    return -np.logaddexp(0, -totals)
""",
        },
    },
    "q3_e_step": {
        "right": [
            """
def e_step(log_gate, log_density):
    joint = log_gate + log_density
    total = np.logaddexp.reduce(joint, axis=1)
    return np.exp(joint - total[:, None]), np.array(total.sum())
""",
            """
def e_step(log_gate, log_density):
    resp, level = np.zeros(log_gate.shape, np.float32), 0.0
    for n in range(len(log_gate)):
        a = log_gate[n] + log_density[n]
        w = np.exp(a - max(a))
        resp[n] = w / sum(w)
        level += max(a) + np.log(sum(w))
    return [resp, level]
""",
        ],
        "wrong": {
            "not in log space": """
def e_step(log_gate, log_density):
    joint = np.exp(log_gate) * np.exp(log_density)
    total = joint.sum(axis=1, keepdims=True)
    return joint / total, np.log(total).sum()
""",
            "a small number in the denominator": """
def e_step(log_gate, log_density):
    joint = np.exp(log_gate) * np.exp(log_density)
    total = joint.sum(axis=1, keepdims=True) + 1e-12
    return joint / total, np.log(total).sum()
""",
            "without the gate": """
def e_step(log_gate, log_density):
    total = np.logaddexp.reduce(log_density, axis=1, keepdims=True)
    return np.exp(log_density - total), np.logaddexp.reduce(log_gate + log_density, axis=1).sum()
""",
            "one maximum for the whole batch": """
def e_step(log_gate, log_density):
    joint = log_gate + log_density
    total = joint.max() + np.log(np.exp(joint - joint.max()).sum(axis=1, keepdims=True))
    return np.exp(joint - total), total.sum()
""",
            "the densities' maximum": """
def e_step(log_gate, log_density):
    joint, top = log_gate + log_density, log_density.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True))
    return np.exp(joint - total), total.sum()
""",
            "a shut gate opened a little": """
def e_step(log_gate, log_density):
    joint = np.maximum(log_gate, -700) + log_density
    total = np.logaddexp.reduce(joint, axis=1, keepdims=True)
    return np.exp(joint - total), total.sum()
""",
            "mean over cases": """
def e_step(log_gate, log_density):
    total = np.logaddexp.reduce(log_gate + log_density, axis=1, keepdims=True)
    return np.exp(log_gate + log_density - total), total.mean()
""",
            "the expected log likelihood instead of the log likelihood": """
def e_step(log_gate, log_density):
    joint = log_gate + log_density
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    return resp, (resp * np.where(resp > 0, joint, 0)).sum()
""",
            "wrong axis": """
def e_step(log_gate, log_density):
    joint = log_gate + log_density
    total = np.logaddexp.reduce(joint, axis=0, keepdims=True)
    return np.exp(joint - total), total.sum()
""",
            "only the best expert": """
def e_step(log_gate, log_density):
    joint = log_gate + log_density
    return np.eye(joint.shape[1])[joint.argmax(axis=1)], np.logaddexp.reduce(joint, axis=1).sum()
""",
            "changes log_gate": """
def e_step(log_gate, log_density):
    log_gate += log_density
    total = np.logaddexp.reduce(log_gate, axis=1, keepdims=True)
    return np.exp(log_gate - total), total.sum()
""",
        },
    },
    "q4_regressions": {
        "right": [
            """
def regressions(x, y, resp):
    W = []
    for i in range(resp.shape[1]):
        root = np.sqrt(resp[:, i:i + 1])
        W.append(np.linalg.lstsq(root * x, root * y, rcond=None)[0])
    return np.array(W)
""",
            """
def regressions(x, y, resp):
    a = np.einsum("ne,nd,nf->edf", resp, x, x)
    b = np.einsum("ne,nd,nc->edc", resp, x, y)
    return np.linalg.inv(a) @ b
""",
        ],
        "wrong": {
            "weights squared: both sides multiplied by resp": """
def regressions(x, y, resp):
    weights = resp.T[:, :, None]
    return np.stack([np.linalg.lstsq(h * x, h * y, rcond=None)[0] for h in weights])
""",
            "no weights": """
def regressions(x, y, resp):
    return np.stack([np.linalg.solve(x.T @ x, x.T @ y)] * resp.shape[1])
""",
            "weights on one side only": """
def regressions(x, y, resp):
    return np.stack([np.linalg.solve(x.T @ x, x.T @ (h[:, None] * y)) for h in resp.T])
""",
            "only cases of which the expert has the largest share": """
def regressions(x, y, resp):
    hard = np.eye(resp.shape[1])[resp.argmax(axis=1)]
    return np.stack([np.linalg.pinv(h[:, None] * x) @ (h[:, None] * y) for h in hard.T])
""",
            "a ridge that was not wanted": """
def regressions(x, y, resp):
    ridge = 0.1 * np.eye(x.shape[1])
    weights = resp.T[:, :, None]
    return np.stack([np.linalg.solve(x.T @ (h * x) + ridge, x.T @ (h * y)) for h in weights])
""",
            "the first output only": """
def regressions(x, y, resp):
    y = np.repeat(y[:, :1], y.shape[1], axis=1)
    weights = resp.T[:, :, None]
    return np.stack([np.linalg.solve(x.T @ (h * x), x.T @ (h * y)) for h in weights])
""",
            "inverse weights": """
def regressions(x, y, resp):
    w = 1 / np.maximum(resp, 1e-9)
    return np.stack([np.linalg.solve(x.T @ (h[:, None] * x), x.T @ (h[:, None] * y)) for h in w.T])
""",
            "a step down the gradient": """
def regressions(x, y, resp):
    W = np.zeros((resp.shape[1], x.shape[1], y.shape[1]))
    for _ in range(20):
        r = y[:, None] - np.einsum("nd,edc->nec", x, W)
        W = W + 0.01 * np.einsum("nd,ne,nec->edc", x, resp, r)
    return W
""",
        },
    },
    "q5_variances": {
        "right": [
            """
def variances(x, y, resp, W, floor):
    var = []
    for i in range(len(W)):
        r = y - x @ W[i]
        var.append(max(floor, np.average((r**2).mean(axis=1), weights=resp[:, i])))
    return var
""",
            """
def variances(x, y, resp, W, floor):
    x, y, resp, W = (v.astype(np.float32) for v in (x, y, resp, W))
    r = y[:, None] - np.einsum("nd,edc->nec", x, W)
    var = np.einsum("ne,nec,nec->e", resp, r, r) / np.einsum("ne->e", resp) / r.shape[2]
    return np.where(var < floor, floor, var)
""",
        ],
        "wrong": {
            "divided by all cases": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum((resp * far).sum(axis=0) / (y.shape[1] * len(x)), floor)
""",
            "not divided by C": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum((resp * far).sum(axis=0) / resp.sum(axis=0), floor)
""",
            "no responsibilities": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).mean(axis=2)
    return np.maximum(far.mean(axis=0), floor)
""",
            "one case less, as if ddof were 1": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum((resp * far).sum(axis=0) / (y.shape[1] * (resp.sum(axis=0) - 1)), floor)
""",
            "the standard deviation": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum(np.sqrt((resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0))), floor)
""",
            "the floor for each output": """
def variances(x, y, resp, W, floor):
    squares = (y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2
    var = np.einsum("ne,nec->ec", resp, squares) / resp.sum(axis=0)[:, None]
    return np.maximum(var, floor).mean(axis=1)
""",
            "the floor for each error": """
def variances(x, y, resp, W, floor):
    squares = np.maximum((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2, floor)
    return np.einsum("ne,nec->e", resp, squares) / (y.shape[1] * resp.sum(axis=0))
""",
            "the floor below the root": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    var = (resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0))
    return np.maximum(np.sqrt(var), floor) ** 2
""",
            "the first output only": """
def variances(x, y, resp, W, floor):
    far = (y[:, None, 0] - np.einsum("nd,ed->ne", x, W[:, :, 0])) ** 2
    return np.maximum((resp * far).sum(axis=0) / resp.sum(axis=0), floor)
""",
            "the floor added": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return (resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0)) + floor
""",
            "no floor": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return (resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0))
""",
            "one variance for all": """
def variances(x, y, resp, W, floor):
    far = ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum(np.full(len(W), (resp * far).sum() / y.size), floor)
""",
        },
    },
}

# --- The gate's derivatives -----------------------------------------------------------------------

DERIVATIVES = """
def gate_derivatives(x, resp, U):
    s = x @ U
    g = np.exp(s - s.max(axis=1, keepdims=True))
    g = (g / g.sum(axis=1, keepdims=True))[:, :-1]
    h = resp[:, :-1]
    gradient = x.T @ (h - g)
    D, K = gradient.shape
    eye = np.eye(K)
    weight = g[:, :, None] * (eye - g[:, None, :])
    curvature = np.einsum("nd,nij,nf->difj", x, weight, x)
    return gradient, curvature
"""


BANK["q6_gate_derivatives"] = {
    "right": [
        """
def gate_derivatives(x, resp, U):
    D, K = len(U), U.shape[1] - 1
    gradient, curvature = np.zeros((D, K)), np.zeros((D, K, D, K))
    for n in range(len(x)):
        s = x[n] @ U
        g = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        for i in range(K):
            gradient[:, i] += x[n] * (resp[n, i] - g[i])
            for j in range(K):
                curvature[:, i, :, j] += np.outer(x[n], x[n]) * g[i] * ((i == j) - g[j])
    return gradient, curvature
""",
        """
def gate_derivatives(x, resp, U):
    x, resp, U = (v.astype(np.float32) for v in (x, resp, U))
    N, D, K = *x.shape, U.shape[1] - 1
    g = np.exp(x @ U - (x @ U).max(1, keepdims=True))
    g = (g / g.sum(1, keepdims=True))[:, :K]
    J = np.einsum("ni,ij->nij", g, np.eye(K, dtype=g.dtype)) - np.einsum("ni,nj->nij", g, g)
    A = sum(np.kron(np.outer(x[n], x[n]), J[n]) for n in range(N))
    return (resp[:, :K] - g).T.dot(x).T, A.reshape(D, K, D, K)
""",
    ],
    "wrong": {
        "responsibilities in the curvature": changed(
            DERIVATIVES, ("weight = g[:, :, None] * (eye - g", "weight = h[:, :, None] * (eye - h")
        ),
        "only the diagonal g(1 − g)": changed(
            DERIVATIVES, ("(eye - g[:, None, :])", "(eye - eye * g[:, None, :])")
        ),
        "inverse weights": changed(
            DERIVATIVES, ("x, weight, x)", "x, eye / (g * (1 - g))[:, :, None], x)")
        ),
        "second derivatives instead of minus them": changed(
            DERIVATIVES, ("gradient, curvature\n", "gradient, -curvature\n")
        ),
        "the gradient's sign": changed(DERIVATIVES, ("(h - g)", "(g - h)")),
        "mean over cases": changed(
            DERIVATIVES, ("gradient, curvature\n", "gradient / len(x), curvature / len(x)\n")
        ),
        "all E columns": changed(
            DERIVATIVES, ("keepdims=True))[:, :-1]", "keepdims=True))"), ("resp[:, :-1]", "resp")
        ),
        "no maximum subtracted": changed(DERIVATIVES, ("s - s.max(axis=1, keepdims=True)", "s")),
        "one maximum for all cases": changed(
            DERIVATIVES, ("s.max(axis=1, keepdims=True)", "s.max()")
        ),
        "axes in another order": changed(DERIVATIVES, ("->difj", "->idjf")),
    },
}

# --- The gate's step ------------------------------------------------------------------------------

STEP = """
def gate_step(x, resp, U):
    def log_softmax(s):
        return s - np.logaddexp.reduce(s, axis=1, keepdims=True)

    g = np.exp(log_softmax(x @ U))[:, :-1]
    h = resp[:, :-1]
    weight = g[:, :, None] * (np.eye(g.shape[1]) - g[:, None, :])
    gradient = x.T @ (h - g)
    curvature = np.einsum("nd,nij,nf->difj", x, weight, x).reshape(gradient.size, -1)
    delta = np.zeros(U.shape)
    delta[:, :-1] = np.linalg.solve(curvature, gradient.ravel()).reshape(gradient.shape)
    before = (resp * log_softmax(x @ U)).sum()
    for size in 0.5 ** np.arange(10):
        if (resp * log_softmax(x @ (U + size * delta))).sum() > before:
            return U + size * delta
    return U
"""
HALVED = STEP[STEP.index("    before") :]
ASCENT = """
def gate_step(x, resp, U):
    def log_softmax(s):
        return s - np.logaddexp.reduce(s, axis=1, keepdims=True)

    delta = np.zeros(U.shape)
    delta[:, :-1] = x.T @ (resp - np.exp(log_softmax(x @ U)))[:, :-1]
"""

BANK["q7_gate_step"] = {
    "right": [
        """
def gate_step(x, resp, U):
    def Q(U):
        s = x @ U
        s = s - s.max(axis=1)[:, None]
        return np.sum(resp * (s - np.log(np.exp(s).sum(axis=1))[:, None]))

    # all E columns: the matrix is singular; in its smallest solution every column differs by the
    # same vector
    s = x @ U
    g = np.exp(s - s.max(axis=1)[:, None])
    g = g / g.sum(axis=1)[:, None]
    D, E = U.shape
    A = np.zeros((D * E, D * E))
    for n in range(len(x)):
        A += np.kron(np.outer(x[n], x[n]), np.diag(g[n]) - np.outer(g[n], g[n]))
    inverse = np.linalg.pinv(A, rcond=1e-11, hermitian=True)
    step = (inverse @ (x.T @ (resp - g)).reshape(-1)).reshape(D, E)
    size = 1.0
    while Q(U + size * step) <= Q(U) and size > 1 / 512:
        size /= 2
    return U + size * step if Q(U + size * step) > Q(U) else U
""",
        """
def gate_step(x, resp, U):
    N, D = x.shape
    K = U.shape[1] - 1

    def gate(U):
        s = np.clip(x @ U, -600, 600)
        g = np.exp(s - np.max(s, axis=1, keepdims=True))
        return g / np.sum(g, axis=1, keepdims=True)

    def Q(U):
        return float(np.sum(resp * np.log(np.maximum(gate(U), 1e-300))))

    # iteratively reweighted least squares: the root of each case's weights on both sides
    rows, targets = [], []
    for g, h, v in zip(gate(U), resp, x):
        B = np.linalg.cholesky(np.diag(g[:K]) - np.outer(g[:K], g[:K])).T
        rows.append(np.einsum("ij,d->idj", B, v).reshape(K, D * K))
        targets.append(np.linalg.solve(B.T, h[:K] - g[:K]))
    step = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0]
    step = np.hstack([step.reshape(D, K), np.zeros((D, 1))])
    for halvings in range(10):
        new = U + step / 2**halvings
        if Q(new) > Q(U):
            return new
    return U
""",
    ],
    "wrong": {
        "the whole step, always": changed(STEP, (HALVED, "    return U + delta\n")),
        "half a step, always": changed(STEP, (HALVED, "    return U + delta / 2\n")),
        "stops at the first size that is worse": changed(
            STEP, ("    return U\n", "    return U + delta\n"), ("np.arange(10)", "np.arange(1)")
        ),
        "two sizes only": changed(STEP, ("np.arange(10)", "np.arange(2)")),
        "four sizes only": changed(STEP, ("np.arange(10)", "np.arange(4)")),
        "nine sizes only": changed(STEP, ("np.arange(10)", "np.arange(9)")),
        "eleven sizes": changed(STEP, ("np.arange(10)", "np.arange(11)")),
        "a tenth instead of a half": changed(STEP, ("0.5 ** np", "0.1 ** np")),
        "the last size that raises Q": changed(STEP, ("np.arange(10)", "np.arange(10)[::-1]")),
        "the best of all sizes": changed(
            STEP,
            (
                HALVED,
                "    sizes = 0.5 ** np.arange(10)\n"
                "    Q = [(resp * log_softmax(x @ (U + s * delta))).sum() for s in sizes]\n"
                "    return U + sizes[np.argmax(Q)] * delta\n",
            ),
        ),
        "the gradient, halved": ASCENT + HALVED,
        "least squares on log responsibilities": """
def gate_step(x, resp, U):
    target = np.log(np.maximum(resp, 1e-300))
    new = np.linalg.lstsq(x, target - target[:, -1:], rcond=None)[0]
    return new
""",
        "only the diagonal g(1 − g)": changed(
            STEP,
            ("(np.eye(g.shape[1]) - g[:, None, :])", "np.eye(g.shape[1]) * (1 - g[:, None, :])"),
        ),
        "inverse weights": changed(
            STEP, ("x, weight, x)", "x, np.eye(g.shape[1]) / (g * (1 - g))[:, :, None], x)")
        ),
        "the opposite direction": changed(STEP, ("(h - g)", "(g - h)")),
        "to the end instead of one step": """
def gate_step(x, resp, U):
    for _ in range(30):
        U = newton(x, resp, U)
    return U

"""
        + STEP.replace("def gate_step", "def newton"),
        "changes U": changed(
            STEP, ("return U + size * delta", "U += size * delta\n            return U")
        ),
    },
}

# --- EM -------------------------------------------------------------------------------------------

EM = """
def em(params, x, y, steps, floor):
    def log_softmax(s):
        return s - np.logaddexp.reduce(s, axis=1, keepdims=True)

    def errors(W):
        return ((y[:, None] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)

    W, var, U = params["W"], params["var"], params["U"]
    C, history = y.shape[1], []

    def expect():
        joint = log_softmax(x @ U) - 0.5 * errors(W) / var - 0.5 * C * np.log(2 * np.pi * var)
        return np.exp(log_softmax(joint)), np.logaddexp.reduce(joint, axis=1).sum()

    for _ in range(steps):
        resp, level = expect()
        history.append(level)
        old = errors(W)
        weights = resp.T[:, :, None]
        W = np.stack([np.linalg.solve((h * x).T @ x, (h * x).T @ y) for h in weights])
        var = (resp * errors(W)).sum(axis=0) / (C * resp.sum(axis=0))
        var = np.maximum(var, floor)
        log_g = log_softmax(x @ U)
        g = np.exp(log_g)[:, :-1]
        gradient = x.T @ (resp[:, :-1] - g)
        weight = g[:, :, None] * (np.eye(g.shape[1]) - g[:, None, :])
        curvature = np.einsum("nd,nij,nf->difj", x, weight, x).reshape(gradient.size, -1)
        delta = np.zeros(U.shape)
        delta[:, :-1] = np.linalg.solve(curvature, gradient.ravel()).reshape(gradient.shape)
        before = (resp * log_g).sum()
        for size in 0.5 ** np.arange(10):
            if (resp * log_softmax(x @ (U + size * delta))).sum() > before:
                U = U + size * delta
                break
    history.append(expect()[1])
    return {"W": W, "var": var, "U": U}, np.array(history)
"""
VAR = "(resp * errors(W)).sum(axis=0)"

BANK["q8_em"] = {
    "right": [
        EM,
        """
def em(params, x, y, steps, floor):
    W, var, U = (np.array(params[name]) for name in ("W", "var", "U"))
    (N, D), C, E = x.shape, y.shape[1], len(var)
    history = []

    def logs(U):
        s = x @ U
        return s - np.log(np.exp(s - s.max(1)[:, None]).sum(1))[:, None] - s.max(1)[:, None]

    for step in range(steps + 1):
        lg = logs(U)
        a = lg.copy()
        for i in range(E):
            for c in range(C):
                a[:, i] -= 0.5 * (y[:, c] - x @ W[i, :, c]) ** 2 / var[i]
                a[:, i] -= 0.5 * np.log(2 * np.pi * var[i])
        level = np.logaddexp.reduce(a, axis=1)
        history += [float(level.sum())]
        if step < steps:
            h = np.exp(a - level[:, None])
            for i in range(E):
                root = np.sqrt(h[:, i])[:, None]
                W[i] = np.linalg.lstsq(root * x, root * y, rcond=None)[0]
                var[i] = max(floor, ((root * (y - x @ W[i])) ** 2).sum() / C / h[:, i].sum())
            g = np.exp(lg)
            J = [np.diag(r) - np.outer(r, r) for r in g[:, :-1]]
            A = sum(np.kron(J[n], np.outer(x[n], x[n])) for n in range(N))
            d = np.linalg.solve(A, ((h - g)[:, :-1].T @ x).ravel()).reshape(E - 1, D)
            d = np.vstack([d, np.zeros(D)]).T
            for k in range(10):
                if np.sum(h * logs(U + d / 2**k)) > np.sum(h * lg):
                    U = U + d / 2**k
                    break
    return [{"U": U, "W": W, "var": var}, history]
""",
    ],
    "wrong": {
        "one maximum for all cases": changed(
            EM,
            (
                "np.exp(log_softmax(joint)), np.logaddexp.reduce(joint, axis=1).sum()",
                "np.exp(log_softmax(joint)), (joint.max() + np.log(np.exp(joint - joint.max())"
                ".sum(axis=1))).sum()",
            ),
        ),
        "the gate's whole step, always": changed(EM, ("> before:", "> -np.inf:")),
        "four sizes of the gate's step only": changed(EM, ("np.arange(10)", "np.arange(4)")),
        "nine sizes of the gate's step": changed(EM, ("np.arange(10)", "np.arange(9)")),
        "eleven sizes of the gate's step": changed(EM, ("np.arange(10)", "np.arange(11)")),
        "least squares on log responsibilities for the gate": changed(
            EM,
            (
                "U = U + size * delta",
                "target = np.log(np.maximum(resp, 1e-300))\n"
                "                U = np.linalg.lstsq(x, target - target[:, -1:], rcond=None)[0]",
            ),
        ),
        "the gate is never fitted": changed(EM, ("U = U + size * delta", "pass")),
        "variances from the old experts": changed(EM, (VAR, "(resp * old).sum(axis=0)")),
        "a new E step before the gate": changed(
            EM,
            (
                "        log_g = log_softmax(x @ U)\n",
                "        resp, _ = expect()\n        log_g = log_softmax(x @ U)\n",
            ),
        ),
        "each case to one expert only": changed(
            EM,
            (
                "        old =",
                "        hard = np.eye(len(var))[resp.argmax(axis=1)]\n"
                "        resp = 0.999 * hard + 0.001 / len(var)\n        old =",
            ),
        ),
        "no floor": changed(EM, ("var = np.maximum(var, floor)", "pass")),
        "history without the end": changed(EM, ("    history.append(expect()[1])\n", "")),
        "mean log likelihood": changed(EM, ("np.array(history)", "np.array(history) / len(x)")),
        "variances over all cases": changed(EM, ("(C * resp.sum(axis=0))", "(C * len(x))")),
        "changes the parameters that came in": changed(
            EM, ("U = U + size * delta", "U += size * delta")
        ),
    },
}
