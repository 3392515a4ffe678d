"""Diagnostics of a routing: load, importance, balance, dropped tokens, and specialisation.

All from a Routing, or from its arrays. `valid` (N,) bool leaves padding out. A token with k experts
counts k times.

    paper                         here              meaning
    Shazeer  Importance(X)        importance        (E,) sum of the weights of each expert
    Shazeer  Load(X)              load              (E,) tokens of each expert, a count; the load
                                                    with a gradient is in routing/noisy_top_k.py
    Chen     n_m, n               counts            assignments of expert m, their sum
    Chen     dispatch entropy     dispatch_entropy  how mixed the clusters of an expert are

The losses that are made of them are in layers/balance.py.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayA, ArrayE, ArrayN, Rng
from moe_np.routing import contract
from moe_np.routing.contract import Routing

# --- load and importance --------------------------------------------------------------------------


def load(routing: Routing, *, valid: ArrayN | None = None) -> ArrayE:
    """Tokens that each expert processes, after capacity: (E,) integers."""
    routing = _checked(routing)
    valid = contract.check_valid(valid, len(routing.probs))
    return np.bincount(routing.expert[valid[routing.token]], minlength=routing.probs.shape[1])


def _checked(routing):
    """The routing as arrays, after checking that its tokens and experts exist: counting allocates
    as many places as the largest number says.
    """
    routing = contract.check_routing(routing)
    n_tokens, n_experts = routing.probs.shape
    for name, index, end in (
        ("token", routing.token, n_tokens),
        ("expert", routing.expert, n_experts),
    ):
        if index.min(initial=0) < 0 or index.max(initial=-1) >= end:
            got = f"{index.min()} to {index.max()}"
            raise InputError(f"routing.{name}: wanted numbers from 0 to {end - 1}, got {got}")
    return routing


def demand(routing: Routing, *, valid: ArrayN | None = None) -> ArrayE:
    """Tokens that asked for each expert, before capacity: (E,) integers."""
    routing = contract.check_routing(routing)
    return routing.demand[contract.check_valid(valid, len(routing.demand))].sum(axis=0)


def importance(routing: Routing, *, valid: ArrayN | None = None) -> ArrayE:
    """Importance(X)_i = Σ_x G(x)_i, the summed weights of each expert (Shazeer et al. 2017, eq. 6).

    (E,) float64.
    """
    routing = _checked(routing)
    weight = checks.array("routing.weight", routing.weight, ("A",))
    counted = contract.check_valid(valid, len(routing.probs))[routing.token]
    expert = routing.expert[counted]
    return np.bincount(expert, weight[counted], minlength=routing.probs.shape[1])


def cv(load: ArrayE) -> float:
    """Coefficient of variation over the experts: standard deviation / mean, population form.

    load (E,) counts or importance. 0 at balance, √(E − 1) with all on one expert, 0 where nothing
    was assigned. (Shazeer et al. 2017, table 6.)
    """
    load = _relative(load)
    return float(load.std() / load.mean()) if load.any() else 0.0


def max_over_mean(load: ArrayE) -> float:
    """The largest load divided by the mean load (Shazeer et al. 2017, table 6).

    load (E,). 1 at balance, E with all on one expert, 1 where nothing was assigned. With one expert
    per processor the layer takes longer by this factor.
    """
    load = _relative(load)
    return float(load.max() / load.mean()) if load.any() else 1.0


def _relative(load):
    """The load checked; divided by its largest number where its squares would overflow."""
    load = checks.array("load", load, ("E",))
    load = load.astype(np.result_type(load.dtype, np.float32), copy=False)
    if (load < 0).any():
        raise InputError(f"load: wanted numbers of at least 0, got {load.min()}")
    largest = load.max(initial=0)
    return load / largest if largest > 1e15 or 0 < largest < 1e-15 else load


def dropped_share(routing: Routing, *, valid: ArrayN | None = None) -> float:
    """1 − assignments kept / assignments asked for. 0 where none was asked for."""
    wanted = int(demand(routing, valid=valid).sum())
    return 1 - int(load(routing, valid=valid).sum()) / wanted if wanted else 0.0


def unserved_share(routing: Routing, *, valid: ArrayN | None = None) -> float:
    """Share of the tokens that no expert processes: dropped by all experts that they asked for, or
    chosen by none.
    """
    routing = _checked(routing)
    valid = contract.check_valid(valid, len(routing.probs))
    served = np.bincount(routing.token, minlength=len(valid))[valid] > 0
    return float(1 - served.mean()) if len(served) else 0.0


# --- specialisation -------------------------------------------------------------------------------


def table(
    expert: ArrayA,
    label: ArrayN,
    *,
    token: ArrayA | None = None,
    shape: tuple[int, int] | None = None,
) -> Array:
    """Contingency table (E, K): how many assignments of expert m have label c.

    expert   (A,) whole numbers from 0
    label    (N,) whole numbers from 0, the cluster or class of each token
    token    (A,) the token of each assignment; None: there is one assignment per token, A = N
    shape    (E, K); None: as large as the largest numbers of `expert` and `label` need

    From a Routing: table(routing.expert, label, token=routing.token). Padding: leave its rows out.
    """
    expert = checks.array("expert", expert, ("A",), kind="i")
    label = _label_of_assignments(label, token, len(expert))
    E, K = _shape_of_table(shape, expert, label)
    for name, a, size in (("expert", expert, E), ("label", label, K)):
        if a.min(initial=0) < 0:
            raise InputError(f"{name}: wanted whole numbers from 0, got {a.min()}")
        if a.max(initial=-1) >= size:
            raise InputError(f"{name}: wanted numbers below {size}, from `shape`, got {a.max()}")
    return np.bincount(expert * K + label, minlength=E * K).reshape(E, K)


MOST_CELLS = 1 << 26  # of a contingency table: 512 MB


def _shape_of_table(shape, expert, label):
    """(E, K), of a table that memory has room for."""
    if shape is None:
        E, K = (int(a.max(initial=-1)) + 1 for a in (expert, label))
    else:
        if not isinstance(shape, (tuple, list)) or len(shape) != 2:
            raise InputError(f"shape: wanted (E, K) or None, got {checks.text(shape)}")
        E, K = (checks.integer("shape", n, minimum=0) for n in shape)
    if E * K > MOST_CELLS:
        raise InputError(
            f"label: wanted numbers for a table of at most {MOST_CELLS} cells, got {E} x {K}; "
            "np.unique(label, return_inverse=True)[1] numbers them from 0"
        )
    return E, K


def _label_of_assignments(label, token, n_assignments):
    """label (N,) -> the label of each assignment (A,)."""
    label = checks.array("label", label, ("N",), kind="i")
    if token is None:
        if len(label) != n_assignments:
            raise InputError(
                f"label: wanted one for each of the {n_assignments} experts, or `token`, "
                f"got {len(label)}"
            )
        return label
    token = checks.array("token", token, (n_assignments,), kind="i")
    if token.min(initial=0) < 0 or token.max(initial=-1) >= len(label):
        raise InputError(
            f"token: wanted rows of the {len(label)} labels, got {token.min()} to {token.max()}"
        )
    return label[token]


def dispatch_entropy(
    expert: ArrayA,
    cluster: ArrayN,
    *,
    token: ArrayA | None = None,
    shape: tuple[int, int] | None = None,
) -> float:
    """Σ_m (n_m / n) H(cluster | expert m), in nats (Chen et al. 2022, arXiv 2208.02813, section 5).

    0 when no expert gets two clusters; ln K when every expert gets all K alike. Arguments as in
    `table`; experts without an assignment add 0.
    """
    return entropy_of_table(table(expert, cluster, token=token, shape=shape))


def entropy_of_table(counts: Array) -> float:
    """The dispatch entropy of a contingency table (E, K)."""
    n = counts.sum(axis=1)
    share = counts / np.maximum(n, 1)[:, None]
    return float((n * numerics.entropy(share, axis=1)).sum() / max(n.sum(), 1))


class Information(NamedTuple):
    """Mutual information in bits. `permuted` is what chance alone gives: only what `bits` has above
    it is specialisation.
    """

    bits: float  # I(expert; label)
    permuted: float  # the mean of the same after shuffling the labels among the tokens
    expert_bits: float  # H(expert), which bits cannot exceed
    label_bits: float  # H(label), which bits cannot exceed


def mutual_information(
    expert: ArrayA,
    label: ArrayN,
    rng: Rng,
    *,
    token: ArrayA | None = None,
    permutations: int = 10,
) -> Information:
    """I = Σ_mc p(m, c) log2 (p(m, c) / (p(m) p(c))) of expert and label in bits, and a baseline.

    Few tokens on many cells have a large I by chance, about (E − 1)(K − 1) / (2 n ln 2): the
    baseline, the mean over `permutations` shuffles of the labels by `rng`, shows how large. Other
    arguments as in `table`.
    """
    checks.generator("rng", rng)
    n_shuffles = checks.integer("permutations", permutations)
    label = checks.array("label", label, ("N",), kind="i")
    bits, expert_bits, label_bits = _information(table(expert, label, token=token))
    shuffled = [
        _information(table(expert, rng.permutation(label), token=token))[0]
        for _ in range(n_shuffles)
    ]
    return Information(bits, float(np.mean(shuffled)), expert_bits, label_bits)


def _information(counts):
    """I = H(row) + H(column) − H(both), and the first two, in bits."""
    p = counts / max(counts.sum(), 1)
    row, column, both = (
        numerics.entropy(q.ravel()) / np.log(2) for q in (p.sum(axis=1), p.sum(axis=0), p)
    )
    return max(0.0, float(row + column - both)), float(row), float(column)
