"""The phases of each router in its own equations: what `walk.route` shows, in which order, under
which names.

PHASES[module]     (phase, equation, names of the arrays that appear, note): an equation or a note may be a
                   function of (options, cache); a phase whose arrays are not there is left out.
                       What neither cache nor Routing keeps is in router_extras.py
COMPUTED[module]   arrays that neither the cache nor the Routing keeps
LOGITS[module]     (equation of the gradient at the logits, {parameter: what its product with x is called})
"""

AXES = {
    **dict.fromkeys(("w", "w_noise", "w_secondary"), "D E"),
    **dict.fromkeys(
        ("logits", "probs", "demand", "clean", "raw", "sigma", "noise", "noisy", "P", "distances"),
        "N E",
    ),
    **dict.fromkeys(("scores", "order", "ranked", "before", "kept"), "N E"),
    **dict.fromkeys(("token", "expert"), "A"),
    **dict.fromkeys(("load", "bias", "threshold"), "E"),
    "x": "N D",
    "seen": "N D",
    "factor": "N D",
    "choice": ("N k", "N"),
    "weight": ("N k", "A"),
    "share": ("N k", "N"),
    "gates": "N 2",
    "runner_up": "N",
    "centroids": "E D",
    "ids": "N",
    "table": "V",
    "w_primary": "D a",
    "primary": "N a",
    "secondary": "N a b",
    "outer_choice": "N k1",
    "outer_weight": "N k1",
    "inner_choice": "N k1 k2",
    "inner_weight": "N k1 k2",
    "dlogits_of_losses": "N E",
}
TWO = {"choice": "N 2", "kept": "N 2"}
OWN_AXES = {
    "gshard": TWO,
    "st_moe": TWO,
    "strictly_balanced": {"weight": ("N E", "A")},
    "hierarchical": {"weight": ("N k1 k2", "A")},
}

LINEAR = ("logits", r"\mathrm{logits} = x w", "logits", "")
SOFTMAX = r"\mathrm{probs}_{ni} = e^{\mathrm{logits}_{ni}} \big/ \sum_j e^{\mathrm{logits}_{nj}}"
SOFT = ("probabilities", SOFTMAX, "probs", "Over all E experts.")
SIGMOID = (
    "scores",
    r"\mathrm{probs} = \sigma(\mathrm{logits})",
    "probs",
    "A sigmoid each: the rows do not sum to 1.",
)
LARGEST = r"\mathrm{choice}_n = \text{the } k \text{ largest of } \mathrm{%s}_n"
BEST_FIRST = "Best first; the lowest index wins a tie. demand says it as a table."
OF_KEPT = r"\mathrm{weight}_{na} = e^{h_a} \big/ \sum_{j \in \mathrm{choice}_n} e^{h_j}, \quad h = \mathrm{%s}_n"
AS_IS = r"\mathrm{weight}_{na} = \mathrm{probs}_{n, \mathrm{choice}_{na}}"
ROOM = r"C = \lceil \mathrm{factor} \cdot %s N / E \rceil"


def _room(options, cache):
    return "" if options.get("capacity_factor") is None else r"\text{an expert takes its first } C"


def _renormalised(options, cache):
    return OF_KEPT.replace("%s", "logits") if options["renormalise"] else AS_IS


def _renormalised_note(options, cache):
    if options["renormalise"]:
        return (
            "Renormalised: a softmax over the kept logits alone; the others will get no gradient."
        )
    return "Not renormalised: the probabilities as they are; every logit will get a gradient."


def _train(text, otherwise):
    """Words that hold with noise, and others without."""
    return lambda options, cache: text if getattr(cache, "noise", None) is not None else otherwise


GENERIC = (
    ("logits", "", "logits", ""),
    ("probabilities", "", "probs", ""),
    ("selection", "", "choice demand", ""),
)
PHASES = {
    "dense": (LINEAR, SOFT, ("selection", "", "demand", "Every token asks for every expert.")),
    "top_k": (
        LINEAR,
        SOFT,
        ("selection", LARGEST.replace("%s", "logits"), "choice demand", BEST_FIRST),
        ("weights", _renormalised, "weight", _renormalised_note),
    ),
    "noisy_top_k": (
        (
            "clean logits",
            r"\mathrm{clean} = x w",
            "clean",
            _train("", "No generator: evaluation, no noise."),
        ),
        (
            "scale",
            r"\sigma = \log(1 + e^{\mathrm{raw}}), \quad \mathrm{raw} = x w_\mathrm{noise}",
            "raw sigma",
            "Eq. 4.",
        ),
        (
            "noise",
            r"\mathrm{noise} \sim \mathcal N(0, 1)",
            "noise",
            "From the generator that was passed in.",
        ),
        (
            "logits",
            _train(r"\mathrm{noisy} = \mathrm{clean} + \mathrm{noise} \cdot \sigma", ""),
            "noisy logits",
            "Eq. 4.",
        ),
        (
            "selection",
            LARGEST.replace("%s", "noisy"),
            "choice runner_up demand",
            "The runner-up comes next.",
        ),
        (
            "weights",
            OF_KEPT.replace("%s", "noisy"),
            "weight probs",
            "Eq. 3: a softmax over the kept noisy logits.",
        ),
        (
            "expected load",
            r"P_{ni} = \Phi\big((\mathrm{clean}_{ni} - \mathrm{kth\ of\ the\ others}) / \sigma_{ni}\big), "
            r"\quad \mathrm{load}_i = \sum_n P_{ni}",
            "P load",
            _train(
                "Eqs. 9, 10: the chance to be kept if one's own noise is drawn again.",
                "Without noise: a count.",
            ),
        ),
    ),
    "switch": (
        (
            "jitter",
            r"\mathrm{seen} = x \cdot \mathrm{factor}",
            "factor seen",
            "The router sees this, the experts see x.",
        ),
        (
            "logits",
            lambda o, c: LINEAR[1] if c.factor is None else r"\mathrm{logits} = \mathrm{seen} \, w",
            "logits",
            "",
        ),
        SOFT,
        (
            "selection",
            r"\mathrm{choice}_n = \arg\max_i \mathrm{logits}_{ni}",
            "choice demand",
            "One expert a token.",
        ),
        (
            "places",
            _room,
            "C token",
            "Tokens in their order; those that find no place are not in the list.",
        ),
    ),
    "gshard": (
        LINEAR,
        SOFT,
        ("selection", r"\mathrm{choice}_n = \text{the two largest}", "choice", "Best first."),
        (
            "gates",
            OF_KEPT.replace("weight", "gates").replace("%s", "logits"),
            "gates",
            "Before any capacity.",
        ),
        (
            "places",
            lambda o, c: (
                r"\text{second choice asked if } 2 \, \mathrm{gates}_{n2} > \mathrm{rnd}_n"
                if o.get("rng")
                else ""
            ),
            "demand C kept",
            "kept: asked for, and placed. First choices of all tokens come before the second ones.",
        ),
    ),
    "st_moe": (
        LINEAR,
        SOFT,
        ("selection", r"\mathrm{choice}_n = \text{the two largest}", "choice", "Best first."),
        (
            "gates",
            OF_KEPT.replace("weight", "gates").replace("%s", "logits"),
            "gates",
            "Before any capacity.",
        ),
        (
            "worth it?",
            lambda o, c: (
                r"\mathrm{share} = \mathrm{gates}_2"
                + (r" / \mathrm{gates}_1" if o.get("of", "first") == "first" else "")
            ),
            "share threshold",
            "The second choice is asked if its share is above the threshold.",
        ),
        (
            "places",
            "",
            "demand C kept",
            "kept: asked for, and placed. First choices come before the second ones.",
        ),
    ),
    "strictly_balanced": (
        LINEAR,
        SOFT,
        (
            "mask",
            lambda o, c: (
                r"\text{each expert keeps its } m \text{ largest}, \; m = \lceil k N / E \rceil"
                if c.training
                else r"\mathrm{kept}_{ni} = \mathrm{probs}_{ni} > \mathrm{threshold}_i"
            ),
            "m kept",
            "The experts choose: equally many tokens each in a batch, any number with thresholds.",
        ),
        (
            "weights",
            r"\mathrm{weight} = \text{softmax over what a token's row keeps}",
            "weight",
            "0 elsewhere. Eq. 16.",
        ),
    ),
    "hierarchical": (
        (
            "groups",
            r"\mathrm{primary} = x w_\mathrm{primary}",
            "primary",
            "A logit for each group.",
        ),
        ("chosen groups", "", "outer_choice outer_weight", "The upper gate's choice and weights."),
        (
            "inside",
            r"\mathrm{secondary} = x w_\mathrm{secondary}",
            "secondary",
            "A logit for each expert of each group.",
        ),
        (
            "chosen experts",
            "",
            "inner_choice inner_weight",
            "The lower gate's, in each chosen group.",
        ),
        (
            "weights",
            r"\mathrm{weight} = \mathrm{outer\_weight} \cdot \mathrm{inner\_weight}",
            "weight",
            "Eq. 12.",
        ),
        (
            "all experts",
            r"\mathrm{logits}_{ij} = \mathrm{primary}_i + \log \mathrm{softmax}(\mathrm{secondary}_i)_j",
            "logits probs demand",
            "Of every expert, as if there were one gate: what a balance loss looks at.",
        ),
    ),
    "expert_choice": (
        LINEAR,
        SOFT,
        ("places", ROOM.replace("%s", ""), "C", "Every expert takes so many tokens."),
        (
            "selection",
            r"\text{each column keeps its } C \text{ largest}",
            "demand",
            "The experts choose, not the tokens.",
        ),
    ),
    "hashing": (
        (
            "lookup",
            r"\mathrm{expert}_n = \mathrm{table}[\mathrm{ids}_n]",
            "ids demand",
            "Nothing is computed from x.",
        ),
    ),
    "kmeans": (
        (
            "distances",
            r"\mathrm{distances}_{nm} = \| x_n - \mathrm{centroids}_m \|^2",
            "distances",
            "",
        ),
        ("logits", r"\mathrm{logits} = -\mathrm{distances} / T", "logits", "T is the temperature."),
        SOFT,
        ("selection", LARGEST.replace("%s", "logits"), "choice demand", "The nearest first."),
        (
            "weights",
            lambda o, c: {"one": r"\mathrm{weight} = 1", "softmax": AS_IS}.get(
                "" if c.renormalise else o["weights"], OF_KEPT.replace("%s", "logits")
            ),
            "weight",
            "",
        ),
    ),
    "base_assignment": (
        LINEAR,
        SIGMOID,
        (
            "selection",
            lambda o, c: (
                r"\text{maximise } \sum_n \mathrm{logits}_{n, \mathrm{expert}_n} \text{ with } N/E \text{ each}"
                if c.training
                else r"\mathrm{expert}_n = \arg\max_m \mathrm{logits}_{nm}"
            ),
            "demand",
            "",
        ),
    ),
    "top_p": (
        LINEAR,
        SOFT,
        ("order", "", "order ranked", "All experts of a token, the most probable first."),
        (
            "sum so far",
            r"\mathrm{before}_{nr} = \sum_{q < r} \mathrm{ranked}_{nq}",
            "before",
            "What the better ones reach.",
        ),
        (
            "selection",
            r"\mathrm{kept} = \mathrm{before} < p",
            "p kept demand",
            "The one that crosses p is kept.",
        ),
    ),
    "bias_balanced": (
        LINEAR,
        SIGMOID,
        (
            "with the bias",
            r"\mathrm{scores} = \mathrm{probs} + \mathrm{bias}",
            "scores",
            "−∞ outside the best groups.",
        ),
        (
            "selection",
            LARGEST.replace("%s", "scores"),
            "choice demand",
            "The bias decides who is asked, and nothing else.",
        ),
        (
            "shares",
            lambda o, c: (
                r"\mathrm{share} = \mathrm{probs}_\mathrm{chosen}"
                + (r" \big/ \sum \mathrm{probs}_\mathrm{chosen}" if o["renormalise"] else "")
            ),
            "share",
            "Without the bias.",
        ),
    ),
    "gradient_estimators": (
        LINEAR,
        SOFT,
        (
            "selection",
            r"h_n \sim \mathrm{probs}_n",
            "demand",
            "One expert a token: drawn with a generator, else the arg-max.",
        ),
    ),
}

# --- Back -----------------------------------------------------------------------------------------

THROUGH_ALL = (
    r"d\mathrm{logits}_{ni} = p_i \Big( dp_i - \sum_j p_j dp_j \Big), \quad p = \mathrm{probs}_n"
)
THROUGH_KEPT = r"d\mathrm{logits}_{ni} = w_i (dw_i - \textstyle\sum_j w_j dw_j) \text{ if kept, } w = \mathrm{weight}_n"
THROUGH_SIGMOID = r"d\mathrm{logits} = d\mathrm{weight} \cdot p (1 - p) \text{ for the chosen}, \quad p = \mathrm{probs}"
ONE = {"w": "dlogits"}
LOGITS = {
    "dense": (THROUGH_ALL, ONE),
    "top_k": (lambda cache: THROUGH_KEPT if cache.renormalise else THROUGH_ALL, ONE),
    "noisy_top_k": (THROUGH_KEPT.replace("logits", "clean"), {"w": "dclean", "w_noise": "draw"}),
    "switch": (THROUGH_ALL, ONE),
    "gshard": (THROUGH_KEPT.replace(r"\mathrm{weight}", r"\mathrm{gates}"), ONE),
    "st_moe": (THROUGH_KEPT.replace(r"\mathrm{weight}", r"\mathrm{gates}"), ONE),
    "strictly_balanced": (THROUGH_KEPT, ONE),
    "hierarchical": ("", {"w_primary": "dprimary", "w_secondary": "dsecondary"}),
    "expert_choice": (THROUGH_ALL, ONE),
    "kmeans": ("", {"centroids": "dlogits"}),
    "base_assignment": (THROUGH_SIGMOID, ONE),
    "top_p": (THROUGH_ALL, ONE),
    "bias_balanced": ("", ONE),
    "gradient_estimators": (
        lambda cache: THROUGH_ALL if cache.estimator == "straight_through" else "",
        ONE,
    ),
}
HELD = "Choices are held: who is chosen has no gradient."
STANDS_IN = {
    "straight_through": "The true gradient is 0. In its place: dweight is passed on as if the weights were probs.",
    "reinforce": "dweight is not used: (demand − probs)(loss − baseline) has to come in as dlogits_of_losses.",
}
BELOW = r"dw = x^\top d\mathrm{logits}, \quad dx = d\mathrm{logits} \, w^\top"
BELOW_JITTER = BELOW.replace("x^", r"\mathrm{seen}^") + r" \cdot \mathrm{factor}"
PARAMETERS = dict.fromkeys(set(LOGITS) - {"noisy_top_k", "hierarchical", "kmeans"}, BELOW)
PARAMETERS["switch"] = lambda cache: BELOW if cache.factor is None else BELOW_JITTER
PARAMETERS["kmeans"] = (
    r"d\mathrm{centroids}_m = \frac2T \sum_n d\mathrm{logits}_{nm} (x_n - \mathrm{centroids}_m), "
    r"\quad dx_n = \frac2T \sum_m d\mathrm{logits}_{nm} (\mathrm{centroids}_m - x_n)"
)
