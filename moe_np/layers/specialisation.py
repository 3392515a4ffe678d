"""Specialisation of experts on a text: what tokens, domains and neighbours a router sends together.

All from `choice` (N, k), the experts of each of N tokens in the order of the text, the best first,
which `choices` makes of a Routing. E_n is the set of the k experts of token n.

    paper                                        here            value
    Mixtral  repetition, table 5                 repetition      E_n and E_{n+1} are not disjoint
    OLMoE    router saturation, eq. 5            saturation      (1/N) Σ_n |E_n(t) ∩ E_n(T)| / k
    OLMoE    expert co-activation, eq. 6         co_activation   N_ij / N_i
    OLMoE    domain specialisation, eq. 7        shares          N_{i,D} / N_D, of all k experts
    OLMoE    vocabulary specialisation, eq. 8    shares          N_{x,i} / N_x, of the first expert

Mixtral: Jiang et al. 2024 (arXiv 2401.04088), section 5. OLMoE: Muennighoff et al. 2024 (arXiv
2409.02060), section 5.

All of these are above 0 for experts that are no specialists: by how much, a permutation shows. A
token that occurs three times has a share of at least a third at some expert by chance alone, so
shares also need a smallest number of occurrences.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayEE, ArrayN, ArrayNK, Rng
from moe_np.layers import diagnostics
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Measure(NamedTuple):
    """A number, and the same after a permutation: only what is above it is specialisation."""

    value: float
    permuted: float  # the mean over some permutations


class Repetition(NamedTuple):
    """How often neighbours share an expert, and four values of routers without memory."""

    value: float
    uniform: float  # k of E experts at random: 1 − C(E − k, k) / C(E, k), for k = 1 it is 1/E
    by_loads: float  # the sets as often as here, drawn for each token alone; for k = 1 it is Σ p_i²
    permuted: float  # the tokens of this text in another order
    by_tokens: float | None  # this order, each token with the experts of another of its kind


class Choices(NamedTuple):
    """The assignments of a routing, token by token, the largest weight first."""

    expert: ArrayNK
    weight: ArrayNK


def choices(routing: Routing) -> Choices:
    """The experts of each token and their weights, the largest first.

    Raises InputError unless every token has the same number of experts.
    """
    routing = contract.check_routing(routing)
    N = len(routing.probs)
    order = np.lexsort((-routing.weight, routing.token))
    count = np.bincount(routing.token, minlength=N)
    if N == 0 or (count != count[0]).any() or count[0] == 0:
        raise InputError("routing: wanted the same number of experts for every token")
    return Choices(routing.expert[order].reshape(N, -1), routing.weight[order].reshape(N, -1))


def _checked(choice, n_experts):
    choice = checks.array("choice", choice, ("N", "k"), kind="i")
    E = checks.size("n_experts", n_experts)
    if choice.size and (choice.min() < 0 or choice.max() >= E):
        got = f"{choice.min()} to {choice.max()}"
        raise InputError(f"choice: wanted numbers from 0 to {E - 1}, got {got}")
    if (np.diff(np.sort(choice, axis=1), axis=1) == 0).any():
        raise InputError("choice: wanted k different experts per token, got one of them twice")
    return choice.astype(np.int64)


def _members(choice, n_experts):
    """(N, E), True at the experts of each token."""
    member = np.zeros((len(choice), n_experts), bool)
    member[np.arange(len(choice))[:, None], choice] = True
    return member


# --- from token to token --------------------------------------------------------------------------


def repetition(
    choice: ArrayNK,
    n_experts: int,
    rng: Rng,
    *,
    ids: ArrayN | None = None,
    permutations: int = 10,
) -> Repetition:
    """Share of the neighbours with an expert in common (Mixtral, table 5), and its baselines:

        (1 / (N − 1)) Σ_n [E_n ∩ E_{n+1} is not empty]

    choice   (N, k) for "first or second choice" of table 5; `choice[:, :1]` for "first choice"
    ids      (N,), the tokens' numbers, for `by_tokens`: what the order of the words alone explains

    The published baseline, `uniform`, takes equal loads for granted; `by_loads` does not.
    """
    choice = _checked(choice, n_experts)
    checks.generator("rng", rng)
    n_permutations = checks.integer("permutations", permutations)
    N, k = choice.shape
    if N < 2:
        raise InputError(f"choice: wanted at least 2 tokens, got {N}")
    member = _members(choice, n_experts)
    uniform = 1 - math.comb(n_experts - k, k) / math.comb(n_experts, k)
    orders = [rng.permutation(N) for _ in range(n_permutations)]
    by_tokens = None
    if ids is not None:
        ids = checks.array("ids", ids, (N,), kind="i")
        swaps = [permutation_within(ids, rng) for _ in range(n_permutations)]
        by_tokens = float(np.mean([_neighbours(member[swap]) for swap in swaps]))
    permuted = float(np.mean([_neighbours(member[order]) for order in orders]))
    return Repetition(_neighbours(member), uniform, _by_loads(member), permuted, by_tokens)


def _neighbours(member):
    return float((member[1:] & member[:-1]).any(axis=1).mean())


def _by_loads(member, block=1024):
    """Σ_S Σ_S' p_S p_S' [S ∩ S' is not empty], over the sets that occur."""
    sets, count = np.unique(member, axis=0, return_counts=True)
    p = count / count.sum()
    sets = sets.astype(np.float32)
    total = 0.0
    for low in range(0, len(sets), block):
        common = (sets[low : low + block] @ sets.T > 0.5) @ p
        total += float(p[low : low + block] @ common)
    return total


def permutation_within(label: ArrayN, rng: Rng) -> ArrayN:
    """A permutation p (N,) that keeps each token among those of its label: label[p] == label."""
    label = checks.array("label", label, ("N",), kind="i")
    permutation = np.empty(len(label), np.int64)
    shuffled = np.lexsort((checks.generator("rng", rng).random(len(label)), label))
    permutation[np.argsort(label, kind="stable")] = shuffled
    return permutation


# --- from checkpoint to checkpoint, and from expert to expert -------------------------------------


def saturation(
    earlier: ArrayNK, last: ArrayNK, n_experts: int, rng: Rng, *, permutations: int = 10
) -> Measure:
    """(1/N) Σ_n |E_n(t) ∩ E_n(T)| / k of two checkpoints on the same text (OLMoE, eq. 5).

    1: the router no longer changes. Two routers that are independent have k/E with equal loads;
    `permuted`, the last choices among other tokens, is that value with the loads that there are.
    """
    last = _checked(last, n_experts)
    earlier = _checked(earlier, n_experts)
    if earlier.shape != last.shape:
        raise InputError(f"earlier: wanted the shape of last, {last.shape}, got {earlier.shape}")
    checks.generator("rng", rng)
    n_permutations = checks.integer("permutations", permutations)
    before = _members(earlier, n_experts)
    after = _members(last, n_experts)

    def common(after):
        return float((before & after).sum() / last.size)

    shuffled = [common(after[rng.permutation(len(last))]) for _ in range(n_permutations)]
    return Measure(common(after), float(np.mean(shuffled)))


def co_activation(choice: ArrayNK, n_experts: int) -> ArrayEE:
    """N_ij / N_i (OLMoE, eq. 6): the share of the tokens of expert i that go to expert j as well.

    (E, E); the diagonal is 1, a row of an expert without tokens is 0. For the value by chance:
    `co_activation(independent(choice, rng), n_experts)`.
    """
    member = _members(_checked(choice, n_experts), n_experts).astype(np.int64)
    both = member.T @ member
    return both / np.maximum(np.diag(both), 1)[:, None]


def independent(choice: ArrayNK, rng: Rng) -> ArrayNK:
    """Each of the k columns permuted among the tokens, without the tokens that then have an expert
    twice: second choices that do not depend on the first.
    """
    choice = checks.array("choice", choice, ("N", "k"), kind="i")
    mixed = checks.generator("rng", rng).permuted(choice, axis=0)
    in_order = np.sort(mixed, axis=1)
    return mixed[(np.diff(in_order, axis=1) > 0).all(axis=1)]


# --- on domains and on the vocabulary -------------------------------------------------------------


class Shares(NamedTuple):
    """How the tokens of each label are divided among the experts."""

    share: Annotated[np.ndarray, "E, K"]  # N_{x,i} / N_x; 0 for a label that does not occur
    count: Annotated[np.ndarray, "K"]  # N_x


def shares(choice: ArrayNK, label: ArrayN, shape: tuple[int, int]) -> Shares:
    """N_{x,i} / N_x: the share of the tokens with label x that go to expert i.

    choice   (N, k) for domain specialisation (OLMoE, eq. 7), where a column sums to k and k/E is
             the value by chance; `choice[:, :1]` for vocabulary specialisation (eq. 8)
    label    (N,) the domain of each token, or the token's number: that of the input, of the true
             next one, or of the one that the model predicts
    shape    (E, K), the numbers of experts and labels
    """
    choice = _checked(choice, shape[0])
    N, k = choice.shape
    label = checks.array("label", label, (N,), kind="i")
    table = diagnostics.table(choice.ravel(), label, token=np.repeat(np.arange(N), k), shape=shape)
    count = np.bincount(label, minlength=shape[1])
    return Shares(table / np.maximum(count, 1), count)


def highest_share(
    choice: ArrayNK,
    label: ArrayN,
    shape: tuple[int, int],
    rng: Rng,
    *,
    minimum: int = 1,
    within: ArrayN | None = None,
    permutations: int = 10,
) -> Measure:
    """The share of the commonest expert of a label, on average over the tokens, and by chance:

        Σ_x N_x max_i share_{i,x} / Σ_x N_x,   over the labels with N_x ≥ minimum

    within   (N,): labels are permuted among tokens of equal `within` alone. With domains as labels
             and the tokens' numbers here, `permuted` is what the vocabulary of a domain explains

    Other arguments as in `shares`. 0 where no label occurs so often.
    """
    checks.generator("rng", rng)
    minimum = checks.integer("minimum", minimum)
    label = checks.array("label", label, ("N",), kind="i")
    values = []
    for _ in range(checks.integer("permutations", permutations)):
        order = rng.permutation(len(label)) if within is None else permutation_within(within, rng)
        values.append(_highest(shares(choice, label[order], shape), minimum))
    return Measure(_highest(shares(choice, label, shape), minimum), float(np.mean(values)))


def _highest(of_labels, minimum):
    count = np.where(of_labels.count >= minimum, of_labels.count, 0)
    return float(of_labels.share.max(axis=0) @ count / max(count.sum(), 1))


class TopToken(NamedTuple):
    """A token of which an expert gets a large share."""

    token: int
    share: float  # of its occurrences
    count: int  # of its occurrences


def top_tokens(
    first: ArrayN, ids: ArrayN, shape: tuple[int, int], *, minimum: int = 10, n: int = 10
) -> list[list[TopToken]]:
    """For each expert the `n` tokens of which it gets the largest shares (OLMoE, table 8), among
    the tokens that occur at least `minimum` times; the most frequent first where shares are equal.

    first   (N,) the first choice of each token
    shape   (E, V)

    With permuted `ids` it gives the largest shares by chance.
    """
    first = checks.array("first", first, ("N",), kind="i")
    minimum = checks.integer("minimum", minimum)
    share, count = shares(first[:, None], ids, shape)
    frequent = np.flatnonzero(count >= minimum)
    rows = []
    for of_expert in share[:, frequent]:
        order = np.lexsort((-count[frequent], -of_expert))[:n]
        chosen = [(int(frequent[i]), float(of_expert[i])) for i in order if of_expert[i] > 0]
        rows.append([TopToken(token, value, int(count[token])) for token, value in chosen])
    return rows
