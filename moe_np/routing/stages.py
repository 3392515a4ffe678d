r"""The stages that several routers share, as `contract.Stage`s with their equations in LaTeX.

A router puts these and its own into its tuples STAGES and BACKWARD; moe_np/show/walk/routers.py
shows them. The names in an equation are those of the arrays: `\mathrm{logits}` is `logits`.
"""

from moe_np.routing.contract import Stage

# --- forward --------------------------------------------------------------------------------------

LINEAR = Stage("logits", r"\mathrm{logits} = x w", {"logits": "N E"})
SOFTMAX = Stage(
    "probabilities",
    r"\mathrm{probs}_{ni} = e^{\mathrm{logits}_{ni}} \big/ \sum_j e^{\mathrm{logits}_{nj}}",
    {"probs": "N E"},
    "Over all E experts.",
)
SIGMOID = Stage(
    "scores",
    r"\mathrm{probs} = \sigma(\mathrm{logits})",
    {"probs": "N E"},
    "A sigmoid of each logit: the rows do not sum to 1.",
)
AS_THEY_ARE = r"\mathrm{weight}_{na} = \mathrm{probs}_{n, \mathrm{choice}_{na}}"


def largest(scores: str, note: str, **arrays: str) -> Stage:
    """The k largest of the array `scores` are chosen."""
    equation = rf"\mathrm{{choice}}_n = \text{{the }} k \text{{ largest of }} \mathrm{{{scores}}}_n"
    return Stage("selection", equation, {"choice": "N k", **arrays, "demand": "N E"}, note)


def of_kept(logits: str, weight: str = "weight") -> str:
    """The equation of renormalised weights: a softmax over the kept logits."""
    return (
        rf"\mathrm{{{weight}}}_{{na}} = e^{{h_a}} \big/ "
        rf"\sum_{{j \in \mathrm{{choice}}_n}} e^{{h_j}}, \quad h = \mathrm{{{logits}}}_n"
    )


BEST_FIRST = "Best first; the lowest index wins a tie. demand is the same as a table."
RENORMALISED = Stage(
    "weights",
    of_kept("logits"),
    {"weight": "N k"},
    "Renormalised: a softmax over the kept logits alone; the others get no gradient.",
    when=("renormalise", True),
)
NOT_RENORMALISED = Stage(
    "weights",
    AS_THEY_ARE,
    {"weight": "N k"},
    "Not renormalised: the probabilities as they are; every logit gets a gradient.",
    when=("renormalise", False),
)

# --- backward -------------------------------------------------------------------------------------

HELD = "The choice of experts is held: it has no gradient."
DLOGITS = {"dlogits": "N E"}
THROUGH_SOFTMAX = Stage(
    "logits",
    r"d\mathrm{logits}_{ni} = p_i \Big( dp_i - \sum_j p_j dp_j \Big), \quad p = \mathrm{probs}_n",
    DLOGITS,
    HELD,
)
THROUGH_SIGMOID = Stage(
    "logits",
    r"d\mathrm{logits} = d\mathrm{weight} \cdot p (1 - p) \text{ for the chosen}, "
    r"\quad p = \mathrm{probs}",
    DLOGITS,
    HELD,
)


def through_kept(weight: str = "weight", logits: str = "logits") -> Stage:
    """Backward of a softmax over the kept logits."""
    equation = (
        rf"d\mathrm{{{logits}}}_{{ni}} = w_i (dw_i - \textstyle\sum_j w_j dw_j) \text{{ if kept}}, "
        rf"\quad w = \mathrm{{{weight}}}_n"
    )
    return Stage("logits", equation, {f"d{logits}": "N E"}, HELD)


BELOW = "For the optimiser, and for the layer below."
LINEAR_BACKWARD = Stage(
    "parameters and tokens",
    r"dw = x^\top d\mathrm{logits}, \quad dx = d\mathrm{logits} \, w^\top",
    {"dx": "N D", "dw": "D E"},
    BELOW,
)
