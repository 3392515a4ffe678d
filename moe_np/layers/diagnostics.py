"""Numbers that say how a gate uses its experts: load, spread, what was dropped, what the experts
specialise in.

From a Routing, or from its arrays. `valid` (N,) bool leaves padding out. A token with k experts
counts k times.

    n_m     assignments of expert m, n their sum        c, label    the cluster or class of a token
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract

# --- load -----------------------------------------------------------------------------------------


def load(routing, *, valid=None):
    """Tokens that each expert processes, n_m, after capacity: (E,) integers."""
    valid = contract.check_valid(valid, len(routing.probs))
    return np.bincount(routing.expert[valid[routing.token]], minlength=routing.probs.shape[1])


def demand(routing, *, valid=None):
    """Tokens that asked for each expert, before capacity: (E,) integers."""
    return routing.demand[contract.check_valid(valid, len(routing.demand))].sum(axis=0)


def importance(routing, *, valid=None):
    """Sum of the weights given to each expert (Shazeer et al. 2017, eq. 6): (E,)."""
    kept = contract.check_valid(valid, len(routing.probs))[routing.token]
    return np.bincount(routing.expert[kept], routing.weight[kept], minlength=routing.probs.shape[1])


def cv(load):
    """Standard deviation / mean over the experts, population form: 0 at balance, √(E − 1) with all
    on one expert.

    load (E,) counts or importance. 0 where nothing was assigned. (Shazeer et al. 2017, table 6.)
    """
    load = checks.array("load", load, ("E",))
    return float(load.std() / load.mean()) if load.any() else 0.0


def max_over_mean(load):
    """The fullest expert against the mean: 1 at balance, E with all on one expert (Shazeer et al.
    2017, table 6).

    load (E,). 1 where nothing was assigned. With one expert to a processor, the layer takes that
    many times longer.
    """
    load = checks.array("load", load, ("E",))
    return float(load.max() / load.mean()) if load.any() else 1.0


def dropped_share(routing, *, valid=None):
    """1 − assignments kept / assignments asked for. 0 where nothing was asked for."""
    asked = int(demand(routing, valid=valid).sum())
    return 1 - int(load(routing, valid=valid).sum()) / asked if asked else 0.0


def unserved_share(routing, *, valid=None):
    """Share of the tokens that no expert processes: dropped by all they asked for, or chosen by
    none.
    """
    valid = contract.check_valid(valid, len(routing.probs))
    served = np.bincount(routing.token, minlength=len(valid))[valid] > 0
    return float(1 - served.mean()) if len(served) else 0.0


# --- specialisation -------------------------------------------------------------------------------


def table(expert, label, *, token=None):
    """Contingency table (E, K): how many assignments of expert m have label c.

    expert (A,), label (N,) whole numbers from 0; token (A,) the token of each assignment, None
    where there is one a token and A = N. From a Routing: table(routing.expert, label,
    token=routing.token). Padding: leave its rows out.
    """
    expert = checks.array("expert", expert, ("A",), kind="i")
    label = checks.array("label", label, ("N",), kind="i")
    if token is not None:
        token = checks.array("token", token, (len(expert),), kind="i")
        if token.min(initial=0) < 0 or token.max(initial=-1) >= len(label):
            raise InputError(
                f"token: wanted rows of the {len(label)} labels, got {token.min()} to {token.max()}"
            )
        label = label[token]
    elif len(label) != len(expert):
        raise InputError(
            f"label: wanted one for each of the {len(expert)} experts, or `token`, got {len(label)}"
        )
    for name, a in (("expert", expert), ("label", label)):
        if a.min(initial=0) < 0:
            raise InputError(f"{name}: wanted whole numbers from 0, got {a.min()}")
    E, K = (int(a.max(initial=-1)) + 1 for a in (expert, label))
    return np.bincount(expert * K + label, minlength=E * K).reshape(E, K)


def dispatch_entropy(expert, cluster, *, token=None):
    """Σ_m (n_m / n) H(cluster | expert m), in nats (Chen et al. 2022, arXiv 2208.02813, section 5).

    0 when no expert gets two clusters; ln K when every expert gets all K alike. Arguments as in
    `table`.
    """
    counts = table(expert, cluster, token=token)
    n = counts.sum(axis=1)
    return float(
        (n * numerics.entropy(counts / np.maximum(n, 1)[:, None], axis=1)).sum() / max(n.sum(), 1)
    )


class Information(NamedTuple):
    """In bits. What chance alone gives is `permuted`: only what `bits` has above it is
    specialisation.
    """

    bits: float  # I(expert; label)
    permuted: float  # the mean of the same after shuffling the labels among the tokens
    expert_bits: float  # H(expert), which bits cannot exceed
    label_bits: float  # H(label), nor this


def _information(counts):
    """I = H(row) + H(column) − H(both), and the first two, in bits."""
    p = counts / max(counts.sum(), 1)
    row, column, both = (
        numerics.entropy(q.ravel()) / np.log(2) for q in (p.sum(axis=1), p.sum(axis=0), p)
    )
    return max(0.0, float(row + column - both)), float(row), float(column)


def mutual_information(expert, label, rng, *, token=None, permutations=10):
    """I = Σ_mc p(m, c) log2 (p(m, c) / (p(m) p(c))) of expert and label in bits, with its permuted
    baseline.

    Few tokens on many cells have a large I by chance, about (E − 1)(K − 1) / (2 n ln 2): the
    baseline shows how large. `rng` shuffles the labels; other arguments as in `table`. Returns an
    Information.
    """
    rounds = checks.integer("permutations", permutations)
    bits, expert_bits, label_bits = _information(table(expert, label, token=token))
    shuffled = [
        _information(table(expert, rng.permutation(label), token=token))[0] for _ in range(rounds)
    ]
    return Information(bits, float(np.mean(shuffled)), expert_bits, label_bits)
