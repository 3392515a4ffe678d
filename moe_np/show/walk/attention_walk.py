"""The part of the walk through a decoder that is attention (`moe_np.layers.attention`): queries,
keys and values, rotation, scores, mask, probabilities, the sum of values, and the way back.

No layer keeps scores and probabilities of attention, arrays of T · T numbers per head: they are
computed here, from the queries and keys of the layer's cache. In the equations t is the position of
a query and s that of a key; query head h reads key head h', and h → h' are the query heads that
read it.
"""

from collections.abc import Iterator

import numpy as np

from moe_np.base.types import Array, ArrayBTD
from moe_np.layers import attention, projections, rotary
from moe_np.layers.projections import Tree
from moe_np.show.steps import State, Trail

AXES = {
    **dict.fromkeys(("h1", "attended"), "B T D"),
    **dict.fromkeys(("q", "q_turned", "O"), "B T Hq d"),
    **dict.fromkeys(("k", "v", "k_turned"), "B T Hk d"),
    **dict.fromkeys(("scores", "S", "P"), "B Hq T S"),
    **dict.fromkeys(("wk", "wv"), "D Hk·d"),
    **dict.fromkeys(("bk", "bv"), "Hk·d"),
    **dict.fromkeys(("cos", "sin"), "T d/2"),
    "wq": "D Hq·d",
    "bq": "Hq·d",
    "wo": "Hq·d D",
    "joined": "B T Hq·d",
}
PROJECT = r"Z = h_1 w_Z, \text{ cut into heads}"
ANGLES = r"\text{angle}_{ti} = t \, \theta^{-2i/d}, \quad i = 0, \dots, d/2 - 1"
TURN = (
    r"\mathrm{Z\_turned}_{ti} = Z_{ti} \, \mathrm{cos}_{ti} - Z_{t,i+d/2} \, \mathrm{sin}_{ti}, "
    r"\quad \mathrm{Z\_turned}_{t,i+d/2} = "
    r"Z_{t,i+d/2} \, \mathrm{cos}_{ti} + Z_{ti} \, \mathrm{sin}_{ti}"
)
SCORES = (
    r"\mathrm{scores}_{hts} = \mathrm{scale} \; "
    r"\mathrm{q\_turned}_{th} \cdot \mathrm{k\_turned}_{sh'}"
)
MASK = (
    r"S_{hts} = \mathrm{scores}_{hts} \text{ if } t \text{ may attend to } s, \text{ else } -\infty"
)
PROBABILITIES = r"P_{hts} = e^{S_{hts}} \Big/ \sum_{j} e^{S_{htj}}"
VALUES = r"O_{th} = \sum_s P_{hts} \, v_{sh'}"
OUTPUT = r"\mathrm{attended} = \mathrm{joined} \; w_o"

DJOINED = (
    r"d\mathrm{joined} = da \, w_o^\top, \quad "
    r"dw_o = \sum_{b,t} \mathrm{joined}_{bt}^\top \, da_{bt}"
)
DV = r"dv_{sh'} = \sum_{h \to h'} \sum_t P_{hts} \, dO_{th}"
DP = r"dP_{hts} = dO_{th} \cdot v_{sh'}"
DS = r"dS_{hts} = P_{hts} \Big( dP_{hts} - \sum_j P_{htj} \, dP_{htj} \Big)"
DQ = r"d\mathrm{q\_turned}_{th} = \mathrm{scale} \sum_s dS_{hts} \, \mathrm{k\_turned}_{sh'}"
DK = (
    r"d\mathrm{k\_turned}_{sh'} = \mathrm{scale} \sum_{h \to h'} \sum_t dS_{hts} \, "
    r"\mathrm{q\_turned}_{th}"
)
UNTURN = r"dq, dk: \text{ the same rotation by the negative angles}"
DPROJECT = r"dw_Z = \sum_{b,t} h_{1,bt}^\top \, dZ_{bt}, \quad Z = q, k, v"
DH1 = r"dh_1 = dq \, w_q^\top + dk \, w_k^\top + dv \, w_v^\top"


# --- forward --------------------------------------------------------------------------------------


def forward(trail: Trail, phase: str, cache: attention.Cache) -> Iterator[State]:
    """The states from h1, which is in the trail, to `attended`; each phase begins with `phase`."""
    params = cache.params
    for letter, what in (("q", "queries"), ("k", "keys"), ("v", "values")):
        arrays = _parameters(params, letter) | {letter: getattr(cache, letter)}
        equation = PROJECT.replace("Z", letter)
        yield trail.see(f"{phase}{what}", equation, arrays, _projection_note(cache, letter))
    yield from _rotation(trail, phase, cache)
    scores, S, P = weights(cache)
    note = (
        "How well query t fits key s. Query head h reads key head h'. "
        f"scale = {cache.pattern.scale:.4g}, which is 1/√d."
    )
    yield trail.see(f"{phase}scores", SCORES, {"scores": scores}, note)
    yield trail.see(f"{phase}mask", MASK, {"S": S}, _mask_note(cache.pattern, S))
    note = "Row by row over the keys: a hidden key gets exactly 0."
    yield trail.see(f"{phase}probabilities", PROBABILITIES, {"P": P}, note)
    note = "Each query takes the mean of the values, with the weights of its row of P."
    yield trail.see(f"{phase}values summed", VALUES, {"O": cache.heads_out}, note)
    joined = cache.heads_out.reshape(*cache.heads_out.shape[:2], -1)
    yield trail.see(f"{phase}heads joined", "", {"joined": joined}, "The heads side by side.")
    wo = params["wo"]
    arrays = {"wo": wo, "attended": projections.rows(joined, wo)}
    yield trail.see(f"{phase}output projection", OUTPUT, arrays, "The heads are mixed.")


def _parameters(params, letter):
    """The parameters of a projection by the names in the walk: of a norm its gain."""
    names = (f"w{letter}", f"b{letter}", f"{letter}_norm")
    return {
        name: params[name]["g"] if name.endswith("norm") else params[name]
        for name in names
        if name in params
    }


def _projection_note(cache, letter):
    Hq, Hk = cache.q.shape[2], cache.k.shape[2]
    note = _heads(Hq if letter == "q" else Hk)
    if letter != "q" and Hk < Hq:
        note += f", for {Hq // Hk} query heads each" if Hk > 1 else ", for all query heads"
    note += "."
    note += f" The bias b{letter} is added." if "b" + letter in cache.params else ""
    note += " Then RMSNorm." if letter + "_norm" in cache.params else ""
    clipped = cache.projections["qkv".index(letter)].inside is not None
    return note + (" Then clipped to ±clip_qkv." if clipped else "")


def _heads(n):
    return f"{n} head" + "s" * (n > 1)


def _rotation(trail, phase, cache):
    turned = cache.pattern.rotary
    note = "One angle per position and pair of features; later pairs turn more slowly."
    yield trail.see(f"{phase}angles", ANGLES, turned._asdict(), note)
    q, k = rotated(cache)
    note = "Pair (i, i + d/2) is turned by its angle. Lengths stay as they are."
    given = {"q_turned": q}
    yield trail.see(f"{phase}queries rotated", TURN.replace("Z", "q"), given, note)
    note = "The product of a query and a key now depends on how far apart they are."
    given = {"k_turned": k}
    yield trail.see(f"{phase}keys rotated", TURN.replace("Z", "k"), given, note)


def _mask_note(pattern, S):
    note = "A token attends to itself and to those before it"
    if pattern.before < S.shape[2] - 1:
        note += f", at most {pattern.before} of them (a sliding window)"
    return note + ("; never to padding." if pattern.valid is not None else ".")


def rotated(cache: attention.Cache) -> tuple[Array, Array]:
    """Queries (B, T, Hq, d) and keys (B, T, Hk, d), turned."""
    turned = cache.pattern.rotary
    assert turned is not None, "a decoder always rotates"
    return rotary.turn(cache.q, *turned), rotary.turn(cache.k, *turned)


def weights(cache: attention.Cache) -> tuple[Array, Array, Array]:
    """scores, S with −∞ at hidden keys, and the probabilities P, each (B, Hq, T, S)."""
    pattern = cache.pattern
    q, k = rotated(cache)
    scores = np.einsum("bthd,bshd->bhts", q, _per_query_head(cache, k)) * q.dtype.type(
        pattern.scale
    )
    T, S = scores.shape[2:]
    distance = np.arange(S) - np.arange(T)[:, None]
    visible = (distance >= -pattern.before) & (distance <= pattern.after)
    if pattern.valid is not None:
        visible = visible & pattern.valid[:, None, None, :]
    masked = np.where(visible, scores, -np.inf)
    log_sum = cache.log_sum[..., None]
    return scores, masked, np.exp(masked - np.where(log_sum == -np.inf, 0, log_sum))


def _per_query_head(cache, a):
    """Keys or values (B, S, Hk, d), each as often as query heads read it: (B, S, Hq, d)."""
    return np.repeat(a, cache.q.shape[2] // a.shape[2], axis=2)


def _per_key_head(cache, da):
    """(B, S, Hq, d) -> (B, S, Hk, d): the sum over the query heads that read one key head."""
    B, S, _, d = da.shape
    return da.reshape(B, S, cache.k.shape[2], -1, d).sum(axis=3)


# --- backward -------------------------------------------------------------------------------------


def backward(trail: Trail, phase: str, cache: attention.Cache, da: ArrayBTD) -> Iterator[State]:
    """The states from da, which arrives at `attended`, to dh1, in the order of
    `attention.backward_all`.
    """
    dh, grads = attention.backward(da, cache)
    joined = cache.heads_out.reshape(*cache.heads_out.shape[:2], -1)
    djoined, _ = projections.rows_backward(da, joined, cache.params["wo"])
    note = "da arrives here and also goes past attention, along the residual."
    arrays = {"dwo": grads["wo"], "djoined": djoined}
    yield trail.see(f"{phase}output projection", DJOINED, arrays, note)
    dO = djoined.reshape(cache.heads_out.shape)
    yield trail.see(f"{phase}heads joined", "", {"dO": dO}, "Cut into heads.")
    yield from _weights_backward(trail, phase, cache, dO)
    dq, dk, _, _ = attention.attend_backward_numpy(dO, cache)
    note = "A rotation is undone by the rotation back."
    yield trail.see(f"{phase}rotation", UNTURN, {"dq": dq, "dk": dk}, note)
    note = "Summed over all tokens."
    yield trail.see(f"{phase}projections", DPROJECT, _gradients(grads), note)
    note = "h1 was read three times: three gradients are added."
    yield trail.see(f"{phase}queries, keys and values", DH1, {"dh1": dh}, note)


def _weights_backward(trail, phase, cache, dO):
    _, _, P = weights(cache)
    dv = _per_key_head(cache, np.einsum("bhts,bthd->bshd", P, dO))
    note = "A value gets from every query that took it, of all heads h that read its head h'."
    yield trail.see(f"{phase}values", DV, {"dv": dv}, note)
    dP = np.einsum("bthd,bshd->bhts", dO, _per_query_head(cache, cache.v))
    note = "Also for hidden keys, where the next step multiplies by P = 0."
    yield trail.see(f"{phase}probabilities", DP, {"dP": dP}, note)
    dS = P * (dP - (P * dP).sum(axis=-1, keepdims=True)) + 0.0  # no −0 at hidden keys
    note = "The softmax: each row sums to 0, and a hidden key gets exactly 0."
    yield trail.see(f"{phase}scores", DS, {"dS": dS}, note)
    q, k = rotated(cache)
    scale = q.dtype.type(cache.pattern.scale)
    dq_turned = scale * np.einsum("bhts,bshd->bthd", dS, _per_query_head(cache, k))
    yield trail.see(f"{phase}queries rotated", DQ, {"dq_turned": dq_turned})
    dk_turned = scale * _per_key_head(cache, np.einsum("bhts,bthd->bshd", dS, q))
    yield trail.see(f"{phase}keys rotated", DK, {"dk_turned": dk_turned})


def _gradients(grads: Tree) -> dict[str, Array]:
    """The gradients of the projections by the names in the walk."""
    arrays: dict[str, Array] = {}
    for letter in "qkv":
        named = _parameters(grads, letter)
        arrays |= {f"d{name}": grad for name, grad in named.items()}
    return arrays
