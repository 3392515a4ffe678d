"""Expert choice, the experts pick their tokens: Zhou et al. 2022 (arXiv 2202.09368), sections 3.2
and 3.3.

    paper                here              shape     meaning
    W_g                  w                 (D, E)    router matrix
    S = Softmax(X·W_g)   probs             (N, E)    softmax over the experts, one row per token
    k = n·c/e            C                           tokens that every expert takes
    c                    capacity_factor             experts that a token gets on average; 2 in most
                                                     of the paper's runs
    I = TopK(Sᵀ, k)      token, expert     (A,)      the assignments, A = E·C
    G                    weight            (A,)      S at those places, not renormalised
    b                    cap                         the most experts that one token gets (section
                                                     3.3), None: no limit
    A                    plan              (E, N)    relaxed assignment of section 3.3
    λ                    temperature                 weight of the entropy there

Every expert is equally full, so there is no load-balancing loss; a token gets any number of experts
from none to E. Where n·c/e is not whole it is rounded up, and no expert takes more tokens than
there are. S has every logit in it, so every logit of a picked token gets a gradient.

Not causal: whether a token is picked depends on the whole batch, later tokens included, so a
language model that predicts the next token must not use it (errata 13).

With a cap the paper solves

    max_A ⟨Sᵀ, A⟩ + λ H(A),   Σ_j A_ij = k,   Σ_i A_ij ≤ b,   0 ≤ A_ij ≤ 1

by Dykstra's alternating projections and then takes TopK(A, k): the cap holds only as far as the
rounds have converged and A is nearly whole (solver="dykstra"). With λ = .001 a quarter of the
tokens can be over the cap after 100 rounds on random scores, and nearly none after 3,000. Without
the entropy it is a transport problem whose best corner is whole: solver="exact" finds that corner
with SciPy's simplex, so that the cap always holds. This differs from the paper, and is the default.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayA, ArrayDE, ArrayN, ArrayND, ArrayNE, Options, Params, Rng
from moe_np.routing import contract, linear_map, stages, top_k, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = False
EXAMPLE: Options = {"capacity_factor": 2.0}

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    probs: ArrayNE
    token: ArrayA
    expert: ArrayA
    C: int
    valid: ArrayN


def exact(scores: ArrayNE, C: int, b: int) -> ArrayNE:
    """The best whole plan: scores (N, E) -> bool (N, E), C tokens per expert, at most b experts per
    token.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    N, E = scores.shape
    per_expert = sparse.kron(np.ones((1, N)), sparse.eye(E), format="csr")
    per_token = sparse.kron(sparse.eye(N), np.ones((1, E)), format="csr")
    gain = scores.ravel().astype(np.float64)
    limits = per_token, np.full(N, b), per_expert, np.full(E, C)
    # the dual simplex ends in a corner, and the corners are whole because the constraints are those
    # of a bipartite graph
    plan = linprog(-gain, *limits, bounds=(0, 1), method="highs-ds").x
    return plan.reshape(N, E) > 0.5


def relaxed(
    scores: ArrayNE, C: int, b: int, *, temperature: float, rounds: int
) -> Annotated[np.ndarray, "E, N"]:
    """log A of the problem with the entropy: scores (N, E) -> (E, N), after `rounds` of Dykstra's
    projections.

    From exp(S/λ), in turn: make each expert's sum C, each token's sum at most b, each entry at most
    1. The two inequalities give back, before their next turn, what they took (Dykstra's
    correction).
    """
    log_plan = scores.T / temperature  # (E, N)
    from_cap = from_one = 0.0
    for _ in range(rounds):
        log_plan = log_plan + np.log(C) - numerics.logsumexp(log_plan, axis=1, keepdims=True)
        before = log_plan + from_cap
        excess = numerics.logsumexp(before, axis=0, keepdims=True)
        log_plan = before + np.minimum(0, np.log(b) - excess)
        from_cap = before - log_plan
        before = log_plan + from_one
        log_plan = np.minimum(0, before)
        from_one = before - log_plan
    return log_plan


def dykstra(
    scores: ArrayNE, C: int, b: int, *, temperature: float = 1e-3, rounds: int = 100
) -> ArrayNE:
    """The paper's plan: each expert's top C of the relaxed assignment. scores (N, E) -> bool (N,
    E).
    """
    log_plan = relaxed(scores, C, b, temperature=temperature, rounds=rounds)
    return contract.demand_of(contract.top_k(log_plan, C), len(scores)).T


SOLVERS = {"exact": exact, "dykstra": dykstra}


def pick(scores: ArrayNE, C: int, cap: int | None = None, solver: str = "exact") -> ArrayNE:
    """Which tokens each expert takes: scores (N, E) -> bool (N, E). Without a cap the lowest token
    wins a tie. Raises InputError for a cap that leaves too few places.
    """
    N, E = scores.shape
    if C == 0:
        return np.zeros((N, E), bool)
    if cap is None or cap >= E:
        return contract.demand_of(contract.top_k(scores.T, C), N).T
    fewest = -(-E * C // N)  # places divided by tokens, rounded up
    if cap < fewest:
        raise InputError(
            f"cap: wanted at least {fewest} for {E} experts that take {C} of {N} tokens, got {cap}"
        )
    return SOLVERS[solver](scores, C, cap)


def route(
    params: Params,
    x: ArrayND,
    *,
    capacity_factor: float,
    cap: int | None = None,
    solver: str = "exact",
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Every expert takes the C tokens that score highest with it: x (N, D) -> (Routing, cache). No
    noise.

    C = min(ceil(N·capacity_factor/E), N), N without padding. Raises InputError for a cap that
    leaves too few places. A row of demand is what the token got: no token asks for an expert.
    """
    x, w = contract.check_inputs(params, x)
    contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    checks.choice("solver", solver, SOLVERS)
    cap = None if cap is None else checks.integer("cap", cap)
    n_valid = int(valid.sum())
    C = min(contract.capacity(n_valid, w.shape[1], 1, capacity_factor), n_valid)
    logits = linear_map.linear(x, w)
    probs = numerics.softmax(logits)
    demand = np.zeros(probs.shape, bool)
    demand[valid] = pick(probs[valid], C, cap, solver)
    token, expert = np.nonzero(demand)
    best_first = np.lexsort((-probs[token, expert], token))
    token, expert = token[best_first], expert[best_first]
    routing = Routing(token, expert, probs[token, expert], logits, probs, demand)
    return routing, Cache(x, w, probs, token, expert, C, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The picks are held."""
    dscore = weighting.probs_backward(dweight, cache.token, cache.expert, cache.probs)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. The picks are held."""
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SOFTMAX,
    Stage(
        "places",
        r"C = \lceil \mathrm{factor} \cdot N / E \rceil",
        {"C": ""},
        "The number of tokens that every expert takes.",
    ),
    Stage(
        "selection",
        r"\text{each column keeps its } C \text{ largest}",
        {"demand": "N E"},
        "The experts choose, not the tokens.",
    ),
)
BACKWARD: tuple[Stage, ...] = (stages.THROUGH_SOFTMAX, stages.LINEAR_BACKWARD)
