"""Assignment 7: right answers that differ from the solution; mistakes, also of public code."""

from moe_np.coursework.bank import template

_counts = template(
    """
def count_rows(expert, owner):
    R, E = len(expert), {experts}
    for_experts = np.zeros((R, E), {dtype})
    sent = np.zeros(({ranks}, {ranks}), int)
    for r, numbers in enumerate(expert):
        for m in numbers:
            for_experts[r, m] += 1
            {send}
    return {result}
""",
    experts="len(owner)",
    dtype="int",
    ranks="R",
    send="sent[r, owner[m]] += 1",
    result="for_experts, sent",
)
BANK = {
    "q1_counts": {
        "right": [
            _counts(),
            _counts(result="for_experts.tolist(), sent.astype(float)"),
            """
def count_rows(expert, owner):
    R, E = len(expert), len(owner)
    by_expert = np.stack([(np.arange(E)[:, None] == m).sum(axis=1) for m in expert])
    sent = np.stack([np.bincount(owner, by_expert[r], R) for r in range(R)])
    return by_expert, sent.astype(np.int32)
""",
        ],
        "wrong": {
            "what stays is not counted": _counts(send="sent[r, owner[m]] += owner[m] != r"),
            "the receiver's row": _counts(send="sent[owner[m], r] += 1"),
            "experts of a rank follow each other": _counts(send="sent[r, m * R // E] += 1"),
            "experts dealt out in turn": _counts(send="sent[r, m % R] += 1"),
            "experts counted in the lists": _counts(
                experts="max((m.max(initial=-1) for m in expert)) + 1"
            ),
            "ranks counted in owner": _counts(ranks="(owner.max() + 1)"),
            "16 bits": _counts(dtype="np.int16"),
            "8 bits": _counts(dtype="np.uint8"),
            "a list is one row": _counts(send="sent[r, owner[m]] = 1"),
            "sums over all ranks": _counts(
                result="for_experts.sum(axis=0) + 0 * for_experts, sent"
            ),
        },
    },
}

_dispatch = template(
    """
def dispatch(x, token, expert, owner):
    R, D = len(x), x[0].shape[1]
    rows, numbers = [], []
    for s in range({ranks}):
        arrived = []
        for r in range(R):
            for a, (n, m) in enumerate(zip(token[r], expert[r])):
                if {to}:
                    arrived.append({entry})
        {sort}
        rows.append({rows})
        numbers.append(np.array([m for m, *_ in arrived], int))
    return rows, numbers
""",
    ranks="R",
    to="owner[m] == s",
    entry="(m, r, a, x[r][n])",
    sort="arrived.sort(key=lambda row: row[:3])",
    rows="np.array([row[-1] for row in arrived]).reshape(-1, D)",
)
BANK["q2_dispatch"] = {
    "right": [
        _dispatch(),
        _dispatch(sort="arrived.sort(key=lambda row: row[0])"),
        """
def dispatch(x, token, expert, owner):
    counts = [len(part) for part in x]
    start = np.cumsum(counts) - counts
    flat = np.concatenate(expert)
    batch = np.concatenate(x).astype(np.float32)
    places = np.concatenate([t + a for t, a in zip(token, start)])
    order = np.argsort(flat, kind="stable")
    order = order[np.argsort(owner[flat[order]], kind="stable")]
    cuts = np.cumsum(np.bincount(owner[flat], minlength=len(x)))[:-1]
    return np.split(batch[places[order]], cuts), np.split(flat[order], cuts)
""",
    ],
    "wrong": {
        "as they arrive: by sender": _dispatch(sort="pass"),
        "by sender, then by expert": _dispatch(
            sort="arrived.sort(key=lambda row: (row[1], row[0]))"
        ),
        "by expert, then by token": _dispatch(
            entry="(m, r, n, x[r][n])", sort="arrived.sort(key=lambda row: row[:3])"
        ),
        "the last sender first": _dispatch(
            sort="arrived.sort(key=lambda row: (row[0], -row[1], row[2]))"
        ),
        "the highest expert first": _dispatch(sort="arrived.sort(key=lambda row: -row[0])"),
        "tokens of the receiver": _dispatch(entry="(m, r, a, x[s][n % len(x[s])])"),
        "the place in the list for the token": _dispatch(entry="(m, r, a, x[r][a % len(x[r])])"),
        "rows that stay are left out": _dispatch(to="owner[m] == s and r != s"),
        "experts of a rank follow each other": _dispatch(to="m * R // len(owner) == s"),
        "numbers counted on the rank": _dispatch().replace(
            "np.array([m for m, *_ in arrived], int)",
            "np.array([sum(owner[:m] == s) for m, *_ in arrived], int)",
        ),
        "a rank without rows has (0,)": _dispatch(rows="np.array([row[-1] for row in arrived])"),
        "a rank without rows is left out": _dispatch(ranks="max(owner) + 1"),
        "each token once per rank": _dispatch(
            sort="""arrived.sort(key=lambda row: row[:3])
        seen = set()
        arrived = [row for row in arrived
                   if (key := (row[1], tuple(row[-1]))) not in seen and not seen.add(key)]"""
        ),
    },
}

_combine = template(
    """
def combine(y, token, expert, weight, owner, n_tokens):
    R, P = len(y), y[0].shape[1]
    out = [np.{start}((n, P)) for n in n_tokens]
    for s in range(R):
        rows = [{row} for r in range(R) for a in range(len(token[r])) if owner[expert[r][a]] == s]
        {sort}
        for value, (m, r, a) in zip(y[s], rows):
            out[r][{place}] {add} {weight} * value
    return {result}
""",
    start="zeros",
    row="(expert[r][a], r, a)",
    sort="rows.sort()",
    place="token[r][a]",
    add="+=",
    weight="weight[r][a]",
    result="out",
)
BANK["q3_combine"] = {
    "right": [
        _combine(),
        _combine(result="[part.astype(np.float32) for part in out]"),
        """
def combine(y, token, expert, weight, owner, n_tokens):
    sender = np.repeat(np.arange(len(y)), [len(t) for t in token])
    t, m, w = (np.concatenate(a) for a in (token, expert, weight))
    order = np.argsort(m, kind="stable")
    order = order[np.argsort(owner[m[order]], kind="stable")]
    rows = np.concatenate(y) * w[order, None]
    n = t[order] + (np.cumsum(n_tokens) - n_tokens)[sender[order]]
    out = (np.arange(sum(n_tokens))[:, None] == n).astype(float) @ rows
    return np.split(out, np.cumsum(n_tokens)[:-1])
""",
    ],
    "wrong": {
        "a token's last expert wins": _combine(add="="),
        "weights left out": _combine(weight="1"),
        "rows taken as by sender": _combine(sort="rows.sort(key=lambda row: (row[1], row[2]))"),
        "rows taken as by sender and expert": _combine(
            sort="rows.sort(key=lambda row: (row[1], row[0], row[2]))"
        ),
        "rows taken as by token": _combine(
            sort="rows.sort(key=lambda row: (row[0], row[1], token[row[1]][row[2]]))"
        ),
        "the last sender first": _combine(
            sort="rows.sort(key=lambda row: (row[0], -row[1], row[2]))"
        ),
        "weights of the receiver": _combine(
            weight="weight[s][a % max(1, len(weight[s]))] if len(weight[s]) else 0.0"
        ),
        "weights in the order of the rows": _combine(
            weight="np.concatenate(weight)[[*rows].index((m, r, a))]"
        ),
        "mean over a token's experts": _combine(
            result="[part / np.maximum(np.bincount(t, minlength=len(part)), 1)[:, None]"
            " for part, t in zip(out, token)]"
        ),
        "weights sum to 1": _combine(
            result="[part / np.maximum(np.bincount(t, w, len(part)), 1e-30)[:, None]"
            " for part, t, w in zip(out, token, weight)]"
        ),
        "tokens without rows are not 0": _combine(start="ones"),
        "experts of a rank follow each other": _combine().replace(
            "owner[expert[r][a]] == s", "expert[r][a] * R // len(owner) == s"
        ),
    },
}

_home = template(
    """
def gradients_at_home(drows, y, dout, token, expert):
    dx = np.zeros((len(dout), drows.shape[1]))
    dweight = np.zeros(len(token))
    for a in {order}:
        dx[token[a]] {add} drows[a]
    for a in range(len(token)):
        dweight[a] = {dweight}
    return {result}
""",
    order='np.argsort(expert, kind="stable")',
    add="+=",
    dweight="dout[token[a]] @ y[a]",
    result="dx, dweight",
)
BANK["q4_home"] = {
    "right": [
        _home(),
        _home(order="np.lexsort((expert, token))", result="dx, dweight.astype(np.float32)"),
        """
def gradients_at_home(drows, y, dout, token, expert):
    order = np.argsort(expert, kind="stable")
    columns = [np.bincount(token[order], c, len(dout)) for c in drows[order].T]
    return np.stack(columns, axis=1), np.einsum("ap,ap->a", y, dout[token])
""",
    ],
    "wrong": {
        "in the order of the list": _home(order="range(len(token))"),
        "from the highest expert down": _home(order="np.argsort(-expert)"),
        "the smallest rows first": _home(order="np.argsort(abs(drows).sum(axis=1))"),
        "sorted by token only": _home(order='np.argsort(token, kind="stable")'),
        "float32": _home(result="dx.astype(np.float32), dweight"),
        "a product of matrices": """
def gradients_at_home(drows, y, dout, token, expert):
    hot = (np.arange(len(dout))[:, None] == token).astype(float)
    return hot @ drows, (dout[token] * y).sum(axis=1)
""",
        "differences of a running sum": """
def gradients_at_home(drows, y, dout, token, expert):
    order = np.lexsort((expert, token))
    total = np.concatenate([np.zeros((1, drows.shape[1])), np.cumsum(drows[order], axis=0)])
    edge = np.searchsorted(token[order], np.arange(len(dout) + 1))
    return total[edge[1:]] - total[edge[:-1]], (dout[token] * y).sum(axis=1)
""",
        "added exactly": _home(
            result="np.array([[math.fsum(drows[token == n, d]) for d in range(drows.shape[1])]"
            " for n in range(len(dout))]), dweight"
        ).replace("\ndef", "\nimport math\n\ndef", 1),
        "rows of the same token are lost": _home(add="="),
        "dweight by expert": _home(result='dx, dweight[np.argsort(expert, kind="stable")]'),
        "dweight from the rows' gradients": _home(dweight="drows[a].sum() * y[a].sum()"),
        "dout in the order of the list": _home(dweight="dout[a % len(dout)] @ y[a]"),
    },
}

_all = template(
    """
def gradients_of_all(shared, experts, held, n_tokens, n_experts):
    R, N = len(shared), sum(n_tokens)
    mean = {{}}
    for name in shared[0]:
        mean[name] = {shared}
    out = np.zeros((n_experts, *experts[0].shape[1:]))
    for r in range(R):
        for i, m in enumerate(held[r]):
            {add}
    return mean, {result}
""",
    shared="sum(part[name] for part in shared) / N",
    add="out[m] += experts[r][i]",
    result="out / N",
)
BANK["q5_all"] = {
    "right": [
        _all(),
        _all(result="(out / N).astype(np.float32)"),
        _all(
            shared="np.add.reduce([part[name] / N for part in shared], axis=0).tolist()",
        ),
    ],
    "wrong": {
        "a mean over the ranks": _all(
            shared="sum(part[name] for part in shared) / R", result="out / R"
        ),
        "a mean over the ranks as well": _all(
            shared="sum(part[name] for part in shared) / N / R", result="out / N / R"
        ),
        "experts averaged over the ranks as well": _all(result="out / N / R"),
        "a mean of the means of the ranks": _all(
            shared="sum(part[name] / max(1, n) for part, n in zip(shared, n_tokens)) / R"
        ),
        "experts divided by their rank's tokens": _all(
            add="out[m] += experts[r][i] / max(1, n_tokens[r])", result="out"
        ),
        "a sum, no mean": _all(shared="sum(part[name] for part in shared)", result="out"),
        "the last replica wins": _all(add="out[m] = experts[r][i]"),
        "a mean over replicas": _all(
            result="out / N / np.bincount(np.concatenate(held))[:, None, None]"
        ),
        "experts at their place on the rank": _all(add="out[i] += experts[r][i]"),
        "experts one after the other": _all(result="np.concatenate(experts)[:n_experts] / N"),
        "experts of one's own tokens only": _all(add="out[m] += experts[r][i] * n_tokens[r] / N"),
        "only the first rank": _all(shared="shared[0][name] / N"),
        "ranks with tokens counted": _all(
            shared="sum(part[name] for part in shared) / max(n_tokens) / R"
        ),
    },
}

_capacity = template(
    """
def keep_by_rank(expert, n_tokens, n_experts, k, factor):
    R = len(expert)
    kept = []
    {before}
    for r, numbers in enumerate(expert):
        C = {capacity}
        {taken}
        fits = []
        for m in {numbers}:
            fits.append(taken[m] {less} C)
            taken[m] += 1
        kept.append({fits})
    lost, n = sum(sum(~f) for f in kept), sum(map(len, kept))
    return kept, {dropped}
""",
    before="pass",
    capacity="max(1, int(np.ceil(factor * n_tokens[r] * k / n_experts)))",
    taken="taken = np.zeros(n_experts, int)",
    numbers="numbers",
    less="<",
    fits="np.array(fits, bool)",
    dropped="lost / n if n else 0.0",
)
BANK["q6_capacity"] = {
    "right": [
        _capacity(),
        _capacity(fits="np.array(fits, bool)", dropped="np.float32(lost / max(1, n))"),
        """
def keep_by_rank(expert, n_tokens, n_experts, k, factor):
    kept = [[int(np.sum(m[: a + 1] == m[a])) <= max(1, -(-factor * n * k // n_experts))
             for a in range(len(m))] for m, n in zip(expert, n_tokens)]
    lost = sum(not fits for part in kept for fits in part)
    return [np.array(part, bool) for part in kept], lost / max(1, sum(map(len, expert)))
""",
    ],
    "wrong": {
        "the capacity of the whole batch": _capacity(
            capacity="max(1, int(np.ceil(factor * sum(n_tokens) * k / n_experts)))"
        ),
        "the capacity of a mean rank": _capacity(
            capacity="max(1, int(np.ceil(factor * sum(n_tokens) / R * k / n_experts)))"
        ),
        "experts fill up over the ranks": _capacity(
            before="taken = np.zeros(n_experts, int)", taken="pass"
        ),
        "rounds down (errata 9)": _capacity(capacity="int(factor * n_tokens[r] * k / n_experts)"),
        "rounds down, at least 1 (errata 9)": _capacity(
            capacity="max(1, int(factor * n_tokens[r] * k / n_experts))"
        ),
        "one more than rounded down": _capacity(
            capacity="int(factor * n_tokens[r] * k / n_experts) + 1"
        ),
        "rounded to the nearest": _capacity(
            capacity="max(1, round(factor * n_tokens[r] * k / n_experts))"
        ),
        "without k": _capacity(capacity="max(1, int(np.ceil(factor * n_tokens[r] / n_experts)))"),
        "from the length of the list": _capacity(
            capacity="max(1, int(np.ceil(factor * len(numbers) / n_experts)))"
        ),
        "rounded up before the factor": _capacity(
            capacity="max(1, int(np.ceil(factor * np.ceil(n_tokens[r] * k / n_experts))))"
        ),
        "experts divided among the ranks": _capacity(
            capacity="max(1, int(np.ceil(factor * n_tokens[r] * k / max(1, n_experts // R))))"
        ),
        "one too many": _capacity(less="<="),
        "the last come first": _capacity(
            numbers="numbers[::-1]", fits="np.array(fits[::-1], bool)"
        ),
        "a mean of the ranks' shares": _capacity(
            dropped="np.mean([1 - np.mean(f) if len(f) else 0 for f in kept])"
        ),
        "the share of the tokens": _capacity(dropped="lost / max(1, sum(n_tokens))"),
        "the share that is kept": _capacity(dropped="1 - lost / n if n else 0.0"),
        "0/0 without assignments": _capacity(dropped="np.float64(lost) / n"),
        "numbers in place of bool: the kept places": _capacity(
            fits="np.flatnonzero(np.array(fits, bool))"
        ),
    },
}

_cost = template(
    """
def layer_cost(N, k, D, H, E, R, m, machine):
    a, beta, inside = machine["alpha"], machine["beta"], machine["beta_node"]
    m = {node}
    b = {bytes}
    n = {messages}
    exchange = n * a + {both}({between}, {within})
    touched = {touched}
    seconds = {longer}({operations} / machine["F"], {read} / machine["B"])
    return exchange, touched, seconds
""",
    node="min(m, R)",
    bytes="2 * N * k * D",
    messages="(R - m) or (R - 1)",
    both="max",
    between="(R - m) / R * b / beta",
    within="(m - 1) / R * b / inside",
    touched="E - E * ((E - k) / E) ** (N * R)",
    longer="max",
    operations="2 * 3 * D * H * N * k",
    read="2 * 3 * D * H * touched / R",
)
BANK["q7_cost"] = {
    "right": [
        _cost(),
        _cost(touched="E * -np.expm1(N * R * np.log1p(-k / E)) if k < E else float(E)"),
        _cost(touched="np.float32(E * (1 - (1 - k / E) ** (N * R)))"),
    ],
    "wrong": {
        "a node larger than all ranks": _cost(node="m"),
        "a message to every other rank": _cost(messages="R - 1"),
        "a message to every rank": _cost(messages="(R - m) or R"),
        "a message to every other node": _cost(messages="(R // m - 1) or (R - 1)"),
        "all bytes travel": _cost(between="b / beta"),
        "one node is left out of the bytes within": _cost(within="m / R * b / inside"),
        "the bytes within among the node only": _cost(within="(m - 1) / m * b / inside"),
        "both networks one after the other": _cost(both="sum_of").replace(
            "\ndef", "\ndef sum_of(*a):\n    return sum(a)\n\ndef", 1
        ),
        "one network": _cost(within="(m - 1) / R * b / beta"),
        "four bytes per number": _cost(bytes="4 * N * k * D"),
        "without k": _cost(bytes="2 * N * D"),
        "tokens of one rank": _cost(touched="E - E * ((E - k) / E) ** N"),
        "k different tokens": _cost(touched="E - E * ((E - 1) / E) ** (N * R * k)"),
        "at most all experts, each row another": _cost(touched="min(E, N * R * k)"),
        "all experts": _cost(touched="float(E)"),
        "two matrices": _cost(
            operations="2 * 2 * D * H * N * k", read="2 * 2 * D * H * touched / R"
        ),
        "one operation per number": _cost(operations="3 * D * H * N * k"),
        "products of all ranks": _cost(operations="2 * 3 * D * H * N * k * R"),
        "every rank reads all": _cost(read="2 * 3 * D * H * touched"),
        "read once per token": _cost(read="2 * 3 * D * H * N * k"),
        "products and reading one after the other": _cost(longer="sum_of").replace(
            "\ndef", "\ndef sum_of(*a):\n    return sum(a)\n\ndef", 1
        ),
    },
}
