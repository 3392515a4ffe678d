"""Assignment 4: right answers that differ from the solution; mistakes, also of public code."""

import importlib.util

from moe_np.coursework.bank import template

NUMBA = importlib.util.find_spec("numba") is not None

LOOP = """
def by_assignment(params, x, token, expert, weight):
    {start}
    for a in range(len(token)):
        n, m = token[a], expert[a]
        z, g = x[n] @ params["w1"][m], x[n] @ params["w3"][m]
        {act}
        {add}
    return {result}
"""
_loop = template(
    LOOP,
    start="out = np.zeros_like(x)",
    act="h = z * (0.5 + 0.5 * np.tanh(z / 2)) * g",
    add='out[n] += weight[a] * (h @ params["w2"][m])',
    result="out",
)


BANK = {
    "q1_loop": {
        "right": [
            _loop(),
            """
def by_assignment(params, x, token, expert, weight):
    w1, w3, w2 = (params[name].astype(np.float32) for name in ("w1", "w3", "w2"))
    x, dense = x.astype(np.float32), np.zeros((len(x), len(w1)), np.float32)
    dense[token, expert] = weight
    z = np.einsum("nd,edh->neh", x, w1)
    h = z / (1 + np.exp(-z.clip(-80))) * np.einsum("nd,edh->neh", x, w3)
    return np.einsum("ne,neh,ehd->nd", dense, h, w2)
""",
            """
def by_assignment(params, x, token, expert, weight):
    out = [[0.0] * x.shape[1] for _ in x]
    for n, m, share in zip(token, expert, weight):
        z = x[n] @ params["w1"][m]
        h = np.where(z > 0, z / (1 + np.exp(-abs(z))), z * np.exp(-abs(z)) / (1 + np.exp(-abs(z))))
        y = (h * (x[n] @ params["w3"][m])) @ params["w2"][m]
        out[n] = [o + share * v for o, v in zip(out[n], y)]
    return out
""",
        ],
        "wrong": {
            "a token's last expert wins": _loop(add='out[n] = weight[a] * (h @ params["w2"][m])'),
            "weights left out": _loop(add='out[n] += h @ params["w2"][m]'),
            "silu on the other layer": _loop(act="h = z * g * (0.5 + 0.5 * np.tanh(g / 2))"),
            "sigmoid for silu": _loop(act="h = (0.5 + 0.5 * np.tanh(z / 2)) * g"),
            "exp(z) / (1 + exp(z))": _loop(act="h = z * np.exp(z) / (1 + np.exp(z)) * g"),
            "adds to the input": _loop(start="out = x"),
            "nan where exp(-z) is infinite": _loop(
                act="e = np.exp(-z)\n        h = z * (1 / e) / (1 + 1 / e) * g"
            ),
            "numbers clipped": _loop(
                act="z = np.clip(z, -50, 50)\n        h = z * (0.5 + 0.5 * np.tanh(z / 2)) * g"
            ),
            "passes dropped tokens on": _loop(start="out = x.copy()\n    out[token] = 0"),
            "mean over a token's experts": _loop(
                result="out / np.maximum(np.bincount(token, minlength=len(x)), 1)[:, None]"
            ),
        },
    },
    "q2_overflow": {
        "right": [
            """
def drop_overflow(token, expert, weight, n_tokens, n_experts, k, factor):
    capacity = max(1, -int(-factor * n_tokens * k // n_experts))
    keep = [a for a in range(len(expert)) if sum(expert[:a] == expert[a]) < capacity]
    return token[keep], expert[keep], weight[keep]
""",
            """
def drop_overflow(token, expert, weight, n_tokens, n_experts, k, factor):
    capacity = np.maximum(np.ceil(factor * n_tokens * k / n_experts), 1)
    hot = expert[:, None] == np.arange(n_experts)
    fits = (hot.cumsum(axis=0)[np.arange(len(expert)), expert] <= capacity)
    return token[fits].tolist(), expert[fits].tolist(), weight[fits].astype(np.float32)
""",
        ],
        "wrong": {},
    },
    "q3_sort": {
        "right": [
            """
def sort_by_expert(expert, n_experts):
    offsets = [0] * (n_experts + 1)
    for m in expert:
        offsets[m + 1] += 1
    for m in range(n_experts):
        offsets[m + 1] += offsets[m]
    order, place, free = [0] * len(expert), [0] * len(expert), list(offsets)
    for a, m in enumerate(expert):
        order[free[m]], place[a] = a, free[m]
        free[m] += 1
    return np.array(order, int), np.array(offsets), np.array(place, int)
""",
            """
def sort_by_expert(expert, n_experts):
    blocks = [np.flatnonzero(expert == m) for m in range(n_experts)]
    order = np.array([a for block in blocks for a in block], dtype=np.int32)
    offsets = np.searchsorted(expert[order], np.arange(n_experts + 1))
    return order, offsets, np.argsort(order)
""",
        ],
        "wrong": {},
    },
    "q4_combine": {
        "right": [
            """
def combine(rows, token, n_tokens):
    out = np.zeros((n_tokens, rows.shape[1]), np.float32)
    for row, n in zip(rows, token):
        out[n] += row
    return out
""",
            """
def combine(rows, token, n_tokens):
    return np.stack([np.bincount(token, column, n_tokens) for column in rows.T], axis=1)
""",
            """
def combine(rows, token, n_tokens):
    order = np.argsort(token, kind="stable")
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows[order], axis=0)])
    edge = np.searchsorted(token[order], np.arange(n_tokens + 1))
    return total[edge[1:]] - total[edge[:-1]]
""",
        ],
        "wrong": {
            "loses rows of the same token": """
def combine(rows, token, n_tokens):
    out = np.zeros((n_tokens, rows.shape[1]))
    out[token] += rows
    return out
""",
            "as many tokens as the largest index": """
def combine(rows, token, n_tokens):
    out = np.zeros((token.max() + 1, rows.shape[1]))
    np.add.at(out, token, rows)
    return out
""",
            "segments of a sorted list, with gaps": """
def combine(rows, token, n_tokens):
    order = np.argsort(token, kind="stable")
    start = np.searchsorted(token[order], np.arange(n_tokens))
    return np.add.reduceat(rows[order], np.minimum(start, len(rows) - 1))
""",
            "the same number of rows for every token": """
def combine(rows, token, n_tokens):
    order = np.argsort(token, kind="stable")
    return rows[order].reshape(n_tokens, -1, rows.shape[1]).sum(axis=1)
""",
            "two rows for each token at most": """
def combine(rows, token, n_tokens):
    out = np.zeros((n_tokens, rows.shape[1]))
    first = np.unique(token, return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(token)), first)
    out[token[first]] = rows[first]
    out[token[rest]] += rows[rest]
    return out
""",
            "fails where there are no rows": """
def combine(rows, token, n_tokens):
    out = np.zeros((max(n_tokens, token.max() + 1), rows.shape[1]))
    np.add.at(out, token, rows)
    return out
""",
            "mean": """
def combine(rows, token, n_tokens):
    out = np.zeros((n_tokens, rows.shape[1]))
    np.add.at(out, token, rows)
    return out / np.maximum(np.bincount(token, minlength=n_tokens), 1)[:, None]
""",
        },
    },
}

OVERFLOW = """
def drop_overflow(token, expert, weight, n_tokens, n_experts, k, factor):
    capacity = {capacity}
    place = (expert[:, None] == np.arange(n_experts)).cumsum(axis=0) - 1
    place = place[np.arange(len(expert)), expert]
    fits = {fits}
    return {result}
"""
_overflow = template(
    OVERFLOW,
    capacity="max(1, int(np.ceil(factor * n_tokens * k / n_experts)))",
    fits="place < capacity",
    result="token[fits], expert[fits], weight[fits]",
)


BANK["q2_overflow"]["wrong"] = {
    "rounds down": _overflow(capacity="int(factor * n_tokens * k / n_experts)"),
    "rounds down, at least 1": _overflow(capacity="max(1, int(factor * n_tokens * k / n_experts))"),
    "one more than rounded down": _overflow(capacity="int(factor * n_tokens * k / n_experts) + 1"),
    "rounded to the nearest": _overflow(
        capacity="max(1, round(factor * n_tokens * k / n_experts))"
    ),
    "rounded up before the factor": _overflow(
        capacity="max(1, int(np.ceil(factor * np.ceil(n_tokens * k / n_experts))))"
    ),
    "rounded up and then down": _overflow(
        capacity="max(1, int(factor * np.ceil(n_tokens * k / n_experts)))"
    ),
    "the factor rounded": _overflow(
        capacity="max(1, int(np.ceil(int(factor + 0.5) * n_tokens * k / n_experts)))"
    ),
    "tokens counted in the list": _overflow(
        capacity="max(1, int(np.ceil(factor * len(np.unique(token)) * k / n_experts)))"
    ),
    "experts counted in the list": _overflow(
        capacity="max(1, int(np.ceil(factor * n_tokens * k / max(1, len(np.unique(expert))))))"
    ),
    "capacity without k": _overflow(capacity="max(1, int(np.ceil(factor * n_tokens / n_experts)))"),
    "capacity from the length of the list": _overflow(
        capacity="max(1, int(np.ceil(factor * len(token) / n_experts)))"
    ),
    "one too many": _overflow(fits="place <= capacity"),
    "the last come first": _overflow(
        fits="np.bincount(expert, minlength=n_experts)[expert] - place <= capacity"
    ),
    "the largest weights first": _overflow(
        fits="np.array([sum((expert == m) & (weight > w)) for m, w in zip(expert, weight)])"
        " < capacity"
    ),
    "dropped ones go to expert 0": _overflow(
        result="token, np.where(fits, expert, 0), np.where(fits, weight, 0)"
    ),
    "dropped ones stay with weight 0": _overflow(result="token, expert, weight * fits"),
}

SORT = """
def sort_by_expert(expert, n_experts):
    order = {order}
    count = np.bincount(expert{minlength})
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    return {result}
"""
_sort = template(
    SORT,
    order='np.argsort(expert, kind="stable")',
    minlength=", minlength=n_experts",
    result="order, np.append(0, np.cumsum(count)), place",
)


BANK["q3_sort"]["wrong"] = {
    "not stable": _sort(order="np.lexsort((-np.arange(len(expert)), expert))"),
    "the last experts are forgotten": _sort(minlength=""),
    "8 bits": _sort(result="order, np.append(0, np.cumsum(count)).astype(np.uint8), place"),
    "16 bits": _sort(result="order, np.append(0, np.cumsum(count)).astype(np.uint16), place"),
    "places of 16 bits": _sort(
        result="order, np.append(0, np.cumsum(count)), place.astype(np.int16)"
    ),
    "a sort that is not stable": _sort(order="np.argsort(expert)"),
    "only experts that occur": _sort(
        result="order, np.append(0, np.cumsum(count[count > 0])), place"
    ),
    "without the end": _sort(result="order, np.cumsum(count) - count, place"),
    "order returned as place": _sort(result="order, np.append(0, np.cumsum(count)), order"),
    "counts returned as offsets": _sort(result="order, np.append(0, count), place"),
    "place within the block": _sort(
        result="order, np.append(0, np.cumsum(count)), place - (np.cumsum(count) - count)[expert]"
    ),
}

BLOCKS = """
def act(p, m, rows):
    z = rows @ p["w1"][m]
    return z * (0.5 + 0.5 * np.tanh(z / 2)) * (rows @ p["w3"][m])

def sparse_forward(params, x, token, expert, weight):
    order = np.argsort(expert, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(expert{minlength})))
    token, weight = token[order], {weight}
    rows, out = x[token], np.zeros_like(x)
    y = np.empty_like(rows)
    for m in range({experts}):
        block = slice(offsets[m], offsets[m + 1])
        y[block] = act(params, m, rows[block]) @ params["w2"][m]
    y *= weight[:, None]
    {back}
    return out
"""
_blocks = template(
    BLOCKS,
    minlength=', minlength=len(params["w1"])',
    weight="weight[order]",
    experts='len(params["w1"])',
    back="np.add.at(out, token, y)",
)


BANK["q5_blocks"] = {
    "right": [
        _blocks(),
        """
def sparse_forward(params, x, token, expert, weight):
    out = np.zeros_like(x)
    for m, (w1, w3, w2) in enumerate(zip(params["w1"], params["w3"], params["w2"])):
        block = np.flatnonzero(expert == m)
        if len(block):
            rows = x[token[block]]
            z = rows @ w1
            out[token[block]] += ((z / (1 + np.exp(-z)) * (rows @ w3)) @ w2) * weight[block, None]
    return out
""",
        """
def sparse_forward(params, x, token, expert, weight):
    # buffers (E, C, D) of the fullest expert's size, all experts in one product
    order = np.argsort(expert, kind="stable")
    count = np.bincount(expert, minlength=len(params["w1"]))
    row = np.empty(len(expert), int)
    row[order] = np.arange(len(expert)) - (np.cumsum(count) - count)[expert[order]]
    buffer = np.zeros((len(count), count.max(), x.shape[1]), x.dtype)
    buffer[expert, row] = x[token]
    z = buffer @ params["w1"]
    y = (z * (0.5 + 0.5 * np.tanh(z / 2)) * (buffer @ params["w3"])) @ params["w2"]
    y = weight[:, None] * y[expert, row]
    return np.stack([np.bincount(token, column, len(x)) for column in y.T], axis=1)
""",
    ],
    "wrong": {
        "right, but one assignment at a time": _loop().replace("by_assignment", "sparse_forward"),
        "right, but all experts on all tokens": """
def sparse_forward(params, x, token, expert, weight):
    dense = np.zeros((len(x), len(params["w1"])), x.dtype)
    dense[token, expert] = weight
    out = np.zeros_like(x)
    for m in range(dense.shape[1]):
        z = x @ params["w1"][m]
        h = z / (1 + np.exp(-z)) * (x @ params["w3"][m])
        out += dense[:, m, None] * (h @ params["w2"][m])
    return out
""",
        "loses rows of the same token": _blocks(back="out[token] += y"),
        "weights not sorted": _blocks(weight="weight"),
        "the same number of rows for every token": _blocks(
            back="""place = np.argsort(order)
    out = y[place].reshape(len(x), -1, x.shape[1]).sum(axis=1)"""
        ),
        "the last experts are forgotten": _blocks(minlength=""),
        "as many experts as the largest entry": _blocks(experts="expert.max() + 1"),
        "stops at the first idle expert": _blocks(
            experts='len(params["w1"]) if len(set(expert)) == len(params["w1"]) else 1'
        ),
    },
}

BACKWARD = """
def sparse_backward(params, x, token, expert, weight, dout):
    {start}
    grads = {{name: np.zeros(w.shape) for name, w in params.items()}}
    for a, (n, m, share) in enumerate(zip(token, expert, weight)):
        w1, w3, w2 = (params[name][m] for name in ("w1", "w3", "w2"))
        a1, b = x[n] @ w1, x[n] @ w3
        s = 1 / (1 + np.exp(-a1))
        h = a1 * s * b
        {dweight}
        dy = {dy}
        dh = dy @ w2.T
        da = dh * b * {slope}
        db = dh * a1 * s
        grads["w1"][m] += np.outer(x[n], da)
        grads["w3"][m] += np.outer(x[n], db)
        grads["w2"][m] += np.outer(h, dy)
        {dx}
    return {result}
"""
_backward = template(
    BACKWARD,
    start="dx, dweight = np.zeros(x.shape), np.zeros(len(token))",
    dweight="dweight[a] = dout[n] @ (h @ w2)",
    dy="share * dout[n]",
    slope="s * (1 + a1 * (1 - s))",
    dx="dx[n] += da @ w1.T + db @ w3.T",
    result="dx, grads, dweight",
)


BANK["q6_backward"] = {
    "right": [
        _backward(),
        """
def sparse_backward(params, x, token, expert, weight, dout):
    w1, w3, w2 = (params[name].astype(np.float32) for name in ("w1", "w3", "w2"))
    x, dout = x.astype(np.float32), dout.astype(np.float32)
    dense = np.zeros((len(x), len(w1)), np.float32)
    dense[token, expert] = weight
    a, b = np.einsum("nd,edh->neh", x, w1), np.einsum("nd,edh->neh", x, w3)
    s = 1 / (1 + np.exp(-a))
    h = a * s * b
    dweight = np.einsum("nd,neh,ehd->ne", dout, h, w2)[token, expert]
    dy = dense[:, :, None] * dout[:, None]
    dh = np.einsum("ned,ehd->neh", dy, w2)
    da, db = dh * b * (s + a * s * (1 - s)), dh * a * s
    dx = np.einsum("neh,edh->nd", da, w1) + np.einsum("neh,edh->nd", db, w3)
    grads = {"w1": np.einsum("nd,neh->edh", x, da), "w3": np.einsum("nd,neh->edh", x, db)}
    return dx, {**grads, "w2": np.einsum("neh,ned->ehd", h, dy)}, dweight
""",
    ],
    "wrong": {
        "the last expert's dx only": _backward(dx="dx[n] = da @ w1.T + db @ w3.T"),
        "no weight": _backward(dy="dout[n]"),
        "weight twice": _backward(dweight="dweight[a] = share * (dout[n] @ (h @ w2))"),
        "slope of the sigmoid": _backward(slope="s * (1 - s)"),
        "silu itself for its slope": _backward(slope="a1 * s"),
        "dweight of the last expert only": _backward(
            dweight="dweight[token == n] = dout[n] @ (h @ w2)"
        ),
        "mean over the tokens": _backward(
            result="dx / len(x), {k: g / len(x) for k, g in grads.items()}, dweight / len(x)"
        ),
        "dweight in the order of the blocks": _backward(
            result='dx, grads, dweight[np.argsort(expert, kind="stable")]'
        ),
        "dropped tokens pass dout on": _backward(
            start="dx, dweight = dout.copy(), np.zeros(len(token))\n    dx[token] = 0"
        ),
    },
}

PLACE = """
@njit
def find_places(choice, n_experts, capacity):
    N, K = choice.shape
    expert, row = {empty}, np.full(N, -1)
    filled = np.zeros(n_experts, np.int64)
    {loops}
            m = choice[n, j]
            if {free} and filled[m] {less} capacity:
                expert[n] = m
                row[n] = {row}
                filled[m] += 1
    return expert, {result}
"""
_place = template(
    PLACE,
    empty="np.full(N, -1)",
    loops="for j in range(K):\n        for n in range(N):",
    free="expert[n] < 0",
    less="<",
    row="filled[m]",
    result="row",
)


BANK["q7_places"] = {
    "right": [
        """
def find_places(choice, n_experts, capacity):
    N, K = choice.shape
    expert, row, filled = np.full(N, -1), np.full(N, -1), np.zeros(n_experts, int)
    left = np.arange(N)
    for j in range(K):
        want = choice[left, j]
        order = np.argsort(want, kind="stable")
        count = np.bincount(want, minlength=n_experts)
        place = np.empty(len(left), int)
        place[order] = np.arange(len(left)) + (filled - np.cumsum(count) + count)[want[order]]
        fits = place < capacity
        expert[left[fits]], row[left[fits]] = want[fits], place[fits]
        filled = np.minimum(filled + count, capacity)
        left = left[~fits]
    return expert, row
""",
        """
@njit
def fill(choice, expert, row, filled, left, capacity):
    for j in range(choice.shape[1]):
        refused = 0
        for i in range(len(left)):
            n = left[i]
            m = choice[n, j]
            if filled[m] == capacity:
                left[refused] = n
                refused += 1
            else:
                expert[n], row[n] = m, filled[m]
                filled[m] += 1
        left = left[:refused]

def find_places(choice, n_experts, capacity):
    N = len(choice)
    expert, row = np.full(N, -1, np.int32), np.full(N, -1, np.int32)
    fill(choice, expert, row, np.zeros(n_experts, np.int32), np.arange(N), capacity)
    return expert, row
""",
    ],
    "wrong": {
        "token by token": _place(loops="for n in range(N):\n        for j in range(K):"),
        "dropped ones go to expert 0": _place(empty="np.zeros(N, np.int64)", free="row[n] < 0"),
        "one too many": _place(less="<="),
        "empty buffers in each round": _place(
            loops="for j in range(K):\n        filled[:] = 0\n        for n in range(N):"
        ),
        "rows counted from 1": _place(row="filled[m] + 1"),
        "the place in the whole list": _place(row="m * capacity + filled[m]"),
        "rows of 16 bits": _place(result="row.astype(np.int16)"),
        "rows of 8 bits": _place(result="row.astype(np.int8)"),
        "the last come first in later rounds": _place(
            loops="for j in range(K):\n        for n in range(N)[:: -1 if j else 1]:"
        ).replace("@njit\n", ""),
        "the last round is missing": _place(
            loops="for j in range(max(1, K - 1)):\n        for n in range(N):"
        ),
        "only the first choice": _place(loops="for j in range(1):\n        for n in range(N):"),
    },
}
if NUMBA:
    BANK["q7_places"]["wrong"]["right, but not compiled"] = _place().replace("@njit\n", "")
