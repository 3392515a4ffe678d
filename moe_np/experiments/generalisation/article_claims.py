"""Eight claims about sparse and dense networks on new data, each with its cases and two controls.

A case is a measure of the runs of some cells, seed by seed, with an interval that is held against
the criterion of the claim. Of the controls one must hold, and one must be not supported: where they
do not come out, the measure cannot tell. For some measures two initialisations of one system differ
from seed to seed by more than the smallest difference of interest; the control that must fail is
then one in which the truth is known to lie on the other side. All criteria were written before the
runs, and the intervals of all cases of all claims hold together.
"""

from typing import NamedTuple

from moe_np.experiments.common.controlled_claims import CASE, MUST_FAIL, MUST_HOLD, Claim
from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.generalisation.case_measures import (
    Measure,
    doublings,
    less,
    less_twice,
    log_time_ratio,
)
from moe_np.experiments.generalisation.data_sets import PROBLEMS
from moe_np.experiments.generalisation.runs import Cell

TOP_2 = "top-2 of 8"
EQUAL_OPERATIONS = "dense 32"
EQUAL_SIZE = "dense 128"
ANEW = "dense 128, drawn anew"
DENSE = {EQUAL_OPERATIONS: "dense, equal operations", EQUAL_SIZE: "dense, equal size"}
LONG = "5 % ten times as long"


class Case(NamedTuple):
    """One interval: what is measured of which cells."""

    name: str
    cells: tuple[Cell, ...]
    measure: Measure
    role: str = CASE


# --- The cases of the claims ----------------------------------------------------------------------


GROWING = ("top-2 of 32", "top-2 of 4"), ("dense 512", "dense 64")
STAYING = 2 * ("top-2 of 4",), 2 * ("dense 64",)


def _growth(problem, mixtures, nets):
    """The growth of a mixture, against that of a dense net."""
    return tuple(Cell(problem, system) for system in mixtures + nets)


GROWTH = Claim(
    "Does a mixture overfit as experts are added?",
    "the more experts, the more a mixture overfits",
    "popular articles; no paper is named",
    "It is a comparison: any model that grows overfits few cases. So a dense net grows alike, from "
    "the size of 4 experts to that of 32.",
    Criterion("rise of the test loss, its growth in the mixture less that in the dense net", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. The claim must hold against "
    "a dense net that does not grow, and fail for a mixture that does not grow.",
    (
        *(Case(p, _growth(p, *GROWING), less_twice("overfit")) for p in PROBLEMS),
        Case(
            "smooth (against a dense net that stays)",
            _growth("smooth", GROWING[0], STAYING[1]),
            less_twice("overfit"),
            MUST_HOLD,
        ),
        Case(
            "smooth (a mixture that stays)",
            _growth("smooth", STAYING[0], GROWING[1]),
            less_twice("overfit"),
            MUST_FAIL,
        ),
    ),
)


def _against(rivals, measure, system=TOP_2, words=""):
    """A system against several others, on every problem."""
    return tuple(
        Case(f"{problem} ({words}{rival})", (Cell(problem, system), Cell(problem, name)), measure)
        for problem in PROBLEMS
        for name, rival in rivals.items()
    )


WORSE = Claim(
    "Does a mixture generalise worse than a dense net?",
    "sparse models generalise worse than dense ones",
    "popular articles; no paper is named",
    "Learning rate and early stopping are those of the least validation loss for both, and the "
    "dense net has equal operations or equal size.",
    Criterion("test loss of the mixture less that of the dense net", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. A mixture whose experts each "
    "see an eighth of the cases, drawn at random, must be worse; a dense net drawn anew must not.",
    (
        *_against(DENSE, less("test")),
        Case(
            "smooth (an expert at random)",
            (Cell("smooth", "at random"), Cell("smooth", EQUAL_SIZE)),
            less("test"),
            MUST_HOLD,
        ),
        Case(
            "smooth (dense, another initialisation)",
            (Cell("smooth", ANEW), Cell("smooth", EQUAL_SIZE)),
            less("test"),
            MUST_FAIL,
        ),
    ),
)


def _with_outliers(problem, system, inputs=LONG):
    return Cell(problem, system, inputs=inputs), Cell(problem, system)


RIVALS = {
    "noisy top-2 of 8": "noisy top-2",
    "expert choice": "expert choice",
    "sigmoid top-2 of 8": "sigmoid top-2",
    **DENSE,
}
DIRTY = "40 % ten times as long, labels redrawn"
OUTLIERS = Claim(
    "Is a softmax gate sensitive to outliers?",
    "a softmax gate is simple but sensitive to outliers",
    "popular articles, in a list of gates; no paper is named",
    "One in twenty training cases has inputs ten times as long. What is measured is how much more "
    "the loss of top-2 on clean test cases rises than that of a rival: the experts see outliers "
    "too, and that is not the gate's fault. Noisy top-2 and expert choice have a softmax as well; "
    "a gate of sigmoids (DeepSeek-V3) and the dense nets have none.",
    Criterion("rise of the test loss with outliers, less that of the rival", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Against a dense net with "
    "the usual outliers the claim must hold for a gate with 40 % of them and redrawn labels, and "
    "fail for a gate with inputs that are only a tenth longer.",
    (
        *(
            Case(
                f"{problem} (against {words})",
                _with_outliers(problem, TOP_2) + _with_outliers(problem, rival),
                less_twice("test"),
            )
            for problem in PROBLEMS
            for rival, words in RIVALS.items()
        ),
        *(
            Case(
                f"regions ({words})",
                _with_outliers("regions", TOP_2, inputs)
                + _with_outliers("regions", EQUAL_OPERATIONS),
                less_twice("test"),
                role,
            )
            for words, inputs, role in (
                ("redrawn labels", DIRTY, MUST_HOLD),
                ("a tenth longer", "5 % a tenth longer", MUST_FAIL),
            )
        ),
    ),
)


NOISE = Claim(
    "Does the noise of noisy top-k gating reduce overfitting?",
    "noisy top-k gating explores more experts and reduces overfitting",
    "popular articles; Shazeer et al. (2017) have the noise for the balance of the load",
    "The articles do not say below what. So below the same experts with the same load-balancing "
    "loss and no noise on the logits, and below the dense nets, which have no gate.",
    Criterion("rise of the test loss with noise, less that of the rival", 0.05, "less"),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Weight decay in place of the "
    "noise must reduce overfitting; noise with a quarter of the cases must not.",
    (
        *_against({TOP_2: "without noise", **DENSE}, less("overfit"), "noisy top-2 of 8"),
        Case(
            "smooth (weight decay)",
            (Cell("smooth", "weight decay"), Cell("smooth", TOP_2)),
            less("overfit"),
            MUST_HOLD,
        ),
        Case(
            "smooth (a quarter of the cases)",
            (Cell("smooth", "noisy top-2 of 8", "few"), Cell("smooth", TOP_2)),
            less("overfit"),
            MUST_FAIL,
        ),
    ),
)


def _amounts(problem, system, rival=TOP_2):
    sizes = tuple(Cell(problem, system, cases) for cases in ("few", "cases", "many"))
    return (*sizes, Cell(problem, rival))


FEW_DATA = Claim(
    "Does expert choice need more data?",
    "expert choice is flexible but needs more data",
    "popular articles; Zhou et al. (2022) say that it trains faster",
    "How many training cases it needs for the test loss that top-2, or a dense net, has with 400, "
    "read off between 100 and 1,600. The vowels have too few.",
    Criterion("doublings of the data that are needed", 0.32),
    "0.32 doublings are a quarter more data. An expert at random must need more than "
    "top-2; top-2 must not need more than an expert at random.",
    (
        *(
            Case(f"{p} (against {words})", _amounts(p, "expert choice", rival), doublings)
            for p in ("regions", "smooth")
            for rival, words in {TOP_2: "top-2", **DENSE}.items()
        ),
        Case("smooth (an expert at random)", _amounts("smooth", "at random"), doublings, MUST_HOLD),
        Case(
            "smooth (top-2 against it)",
            _amounts("smooth", TOP_2, "at random"),
            doublings,
            MUST_FAIL,
        ),
    ),
)

SHARED = ("one shared expert", "shared first layer")
SHARING = Claim(
    "Does sharing parameters make representations robust?",
    "parameters that experts share give robust representations and save memory",
    "popular articles; Dai et al. (2024) share experts for another reason, that what all tokens "
    "need is learnt once",
    "An expert that every case passes, at equal size; and a first layer that all experts have in "
    "common, which has fewer parameters. Robust means that the loss rises less when noise is added "
    "to the test inputs. Memory is arithmetic and needs no test.",
    Criterion("rise of the loss with noise on the inputs, less that of the rival", 0.05, "less"),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Training with noise on the "
    "inputs must make the rise smaller; another initialisation of a dense net must not.",
    (
        *(
            case
            for system in SHARED
            for case in _against(
                {TOP_2: "top-2", **DENSE}, less("noisy", "test"), system, f"{system} against "
            )
        ),
        Case(
            "vowels (trained with noise)",
            (Cell("vowels", "trained with noise"), Cell("vowels", TOP_2)),
            less("noisy", "test"),
            MUST_HOLD,
        ),
        Case(
            "smooth (dense, another initialisation)",
            (Cell("smooth", ANEW), Cell("smooth", EQUAL_SIZE)),
            less("noisy", "test"),
            MUST_FAIL,
        ),
    ),
)


SHIFT = Claim(
    "Do experts learn patterns that are too special for shifted inputs?",
    "specialised experts learn patterns that are too special, and do worse when the inputs shift",
    "popular articles; no paper is named",
    "How much more the loss rises from test cases like those of training to shifted ones: for the "
    "vowels from adults to children, for the others by a vector that moves all inputs. For the "
    "vowels the interval is over splits of the adults of one table; the children are the same in "
    "every seed, so it says nothing about other speakers.",
    Criterion("rise of the loss under a shift, less that of the dense net", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. The claim must hold with "
    "twice the shift for the mixture alone, and fail with twice the shift for the dense net alone.",
    (
        *_against(DENSE, less("shifted", "test")),
        Case(
            "smooth (twice the shift for the mixture)",
            (Cell("smooth", TOP_2), Cell("smooth", EQUAL_SIZE)),
            less("shifted twice", "test", "shifted"),
            MUST_HOLD,
        ),
        Case(
            "smooth (twice the shift for the dense net)",
            (Cell("smooth", TOP_2), Cell("smooth", EQUAL_SIZE)),
            less("shifted", "test", "shifted twice"),
            MUST_FAIL,
        ),
    ),
)

TIME = Claim(
    "Is a mixture as good as a dense net in less time?",
    "at equal size a sparse model trains faster",
    "popular articles; Fedus et al. (2021) say it at equal operations per token",
    "Until both are at the validation loss that the worse of the two reaches. In operations, which "
    "are the same on every machine; and in seconds of one processor of this machine, which at this "
    "size go to everything but the operations. The articles speak of equal size, their source of "
    "equal operations: both. The learning rates are those of the least validation loss, as for all "
    "claims, and not those of the highest speed.",
    Criterion("log of the ratio of the times, mixture over dense net", 0.1, "less"),
    "A tenth is the least for which a reader would change the model. The mixture must be faster in "
    "operations than a dense net four times its size; that net in its place must not be.",
    (
        *(
            case
            for unit in ("operations", "seconds")
            for case in _against(DENSE, log_time_ratio(unit), words=f"in {unit}, ")
        ),
        Case(
            "regions (against dense 512)",
            (Cell("regions", TOP_2), Cell("regions", "dense 512")),
            log_time_ratio("operations"),
            MUST_HOLD,
        ),
        Case(
            "regions (dense 512 in its place)",
            (Cell("regions", "dense 512"), Cell("regions", EQUAL_SIZE)),
            log_time_ratio("operations"),
            MUST_FAIL,
        ),
    ),
)

CLAIMS = {
    "more experts": GROWTH,
    "against dense": WORSE,
    "outliers": OUTLIERS,
    "noise": NOISE,
    "few data": FEW_DATA,
    "sharing": SHARING,
    "shift": SHIFT,
    "time": TIME,
}
INTERVALS = sum(len(claim.cases) for claim in CLAIMS.values())
