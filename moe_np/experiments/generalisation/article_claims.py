"""Eight claims about sparse and dense networks on new data, each with its cases and two controls.

A case is a measure of the runs of some cells, seed by seed, with an interval that is held against
the criterion of the claim. Of the controls one must hold and one must fail: where they do not, the
measure cannot tell. All criteria were written before the runs, and the intervals of all cases of
all claims hold together.
"""

from typing import NamedTuple

from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.generalisation.case_measures import (
    Measure,
    doublings,
    less,
    less_twice,
    log_time_ratio,
    twice_the_shift,
)
from moe_np.experiments.generalisation.data_sets import PROBLEMS
from moe_np.experiments.generalisation.runs import Cell

CASE, MUST_HOLD, MUST_FAIL = "case", "must hold", "must fail"
TOP_2 = "top-2 of 8"
ANEW = "top-2 of 8, drawn anew"
EQUAL_OPERATIONS = "dense 32"
EQUAL_SIZE = "dense 128"
DENSE = {EQUAL_OPERATIONS: "dense, equal operations", EQUAL_SIZE: "dense, equal size"}
LONG = "5 % ten times as long"


class Case(NamedTuple):
    """One interval: what is measured of which cells."""

    name: str
    cells: tuple[Cell, ...]
    measure: Measure
    role: str = CASE


class Claim(NamedTuple):
    """What is said, and what decides about it.

    claim       in our words
    source      where it is said
    case        the case in which it is said, and the factors that are kept apart
    criterion   with the level of a single claim; `criteria` gives the level of all together
    reason      why this measure, and why this smallest difference
    """

    title: str
    claim: str
    source: str
    case: str
    criterion: Criterion
    reason: str
    cases: tuple[Case, ...]


# --- The cases of the claims ----------------------------------------------------------------------


def _growth(problem, against, cases="cases"):
    """The growth of the mixture from 4 to 32 experts, against that of a dense net."""
    systems = ("top-2 of 32", "top-2 of 4", *against)
    return tuple(Cell(problem, system, cases) for system in systems)


GROWING = ("dense 512", "dense 64")
GROWTH = Claim(
    "Does a mixture overfit as experts are added?",
    "the more experts, the more a mixture overfits",
    "popular articles; no paper is named",
    "It is a comparison: any model that grows overfits few cases. So a dense net grows alike, from "
    "the size of 4 experts to that of 32.",
    Criterion("rise of the test loss, its growth in the mixture less that in the dense net", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. The claim must hold against "
    "a dense net that does not grow, and fail with so many cases that neither overfits.",
    (
        *(Case(p, _growth(p, GROWING), less_twice("overfit")) for p in PROBLEMS),
        Case(
            "smooth (against a dense net that stays)",
            _growth("smooth", ("dense 64", "dense 64")),
            less_twice("overfit"),
            MUST_HOLD,
        ),
        Case(
            "smooth (four times the cases)",
            _growth("smooth", GROWING, "many"),
            less_twice("overfit"),
            MUST_FAIL,
        ),
    ),
)


def _against_dense(measure, problems=PROBLEMS):
    """top-2 of 8 against both dense nets, on every problem."""
    return tuple(
        Case(f"{problem} ({words})", (Cell(problem, TOP_2), Cell(problem, net)), measure)
        for problem in problems
        for net, words in DENSE.items()
    )


WORSE = Claim(
    "Does a mixture generalise worse than a dense net?",
    "sparse models generalise worse than dense ones",
    "popular articles; no paper is named",
    "Learning rate and early stopping are those of the least validation loss for both, and the "
    "dense net has equal operations or equal size.",
    Criterion("test loss of the mixture less that of the dense net", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. A mixture whose experts each "
    "see an eighth of the cases, drawn at random, must be worse; another initialisation must not.",
    (
        *_against_dense(less("test")),
        Case(
            "smooth (an expert at random)",
            (Cell("smooth", "at random"), Cell("smooth", EQUAL_SIZE)),
            less("test"),
            MUST_HOLD,
        ),
        Case(
            "regions (another initialisation)",
            (Cell("regions", ANEW), Cell("regions", TOP_2)),
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
    "dense 32": "no gate",
}
DIRTY = "40 % ten times as long, labels redrawn"
OUTLIERS = Claim(
    "Is a softmax gate sensitive to outliers?",
    "a softmax gate is simple but sensitive to outliers",
    "popular articles, in a list of gates; no paper is named",
    "One in twenty training cases has inputs ten times as long. What is measured is how much more "
    "the loss of a softmax gate on clean test cases rises than that of another gate, or of a net "
    "without a gate: the experts see the outliers too, and that is not the gate's fault.",
    Criterion("rise of the test loss with outliers, less that of the rival", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Outliers of which the labels "
    "are redrawn, 40 % of the cases, must raise the loss; inputs a tenth longer must not.",
    (
        *(
            Case(
                f"{problem} (against {words})",
                _with_outliers(problem, TOP_2) + _with_outliers(problem, rival),
                less_twice("test"),
            )
            for problem in ("vowels", "regions")
            for rival, words in RIVALS.items()
        ),
        Case(
            "regions (redrawn labels)",
            _with_outliers("regions", TOP_2, DIRTY),
            less("test"),
            MUST_HOLD,
        ),
        Case(
            "regions (a tenth longer)",
            _with_outliers("regions", TOP_2, "5 % a tenth longer"),
            less("test"),
            MUST_FAIL,
        ),
    ),
)


def _against_top_2(problem, system):
    return Cell(problem, system), Cell(problem, TOP_2)


NOISE = Claim(
    "Does the noise of noisy top-k gating reduce overfitting?",
    "noisy top-k gating explores more experts and reduces overfitting",
    "popular articles; Shazeer et al. (2017) have the noise for the balance of the load",
    "The same experts, the same load-balancing loss, with and without noise on the logits.",
    Criterion("rise of the test loss with noise less that without", 0.05, "less"),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Weight decay in place of the "
    "noise must reduce overfitting; a hundredth of the noise must not.",
    (
        *(Case(p, _against_top_2(p, "noisy top-2 of 8"), less("overfit")) for p in PROBLEMS),
        Case(
            "smooth (weight decay)",
            _against_top_2("smooth", "weight decay"),
            less("overfit"),
            MUST_HOLD,
        ),
        Case(
            "smooth (a hundredth of the noise)",
            _against_top_2("smooth", "noise of a hundredth"),
            less("overfit"),
            MUST_FAIL,
        ),
    ),
)


def _amounts(problem, system):
    sizes = tuple(Cell(problem, system, cases) for cases in ("few", "cases", "many"))
    return (*sizes, Cell(problem, TOP_2))


FEW_DATA = Claim(
    "Does expert choice need more data?",
    "expert choice is flexible but needs more data",
    "popular articles; Zhou et al. (2022) say that it trains faster",
    "How many training cases it needs for the test loss that top-2 has with 400, read off between "
    "100 and 1,600. The vowels have too few.",
    Criterion("doublings of the data that are needed", 0.32),
    "0.32 doublings are a quarter more data. An expert at random must need more; another "
    "initialisation of top-2 must not.",
    (
        *(Case(p, _amounts(p, "expert choice"), doublings) for p in ("regions", "smooth")),
        Case("smooth (an expert at random)", _amounts("smooth", "at random"), doublings, MUST_HOLD),
        Case("smooth (another initialisation)", _amounts("smooth", ANEW), doublings, MUST_FAIL),
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
    Criterion("rise of the loss with noise on the inputs, less that of top-2", 0.05, "less"),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Training with noise on the "
    "inputs must make the rise smaller; another initialisation must not.",
    (
        *(
            Case(f"{problem} ({system})", _against_top_2(problem, system), less("noisy", "test"))
            for problem in PROBLEMS
            for system in SHARED
        ),
        Case(
            "vowels (trained with noise)",
            _against_top_2("vowels", "trained with noise"),
            less("noisy", "test"),
            MUST_HOLD,
        ),
        Case(
            "vowels (another initialisation)",
            _against_top_2("vowels", ANEW),
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
    "vowels from adults to children, for the others by a vector that moves all inputs.",
    Criterion("rise of the loss under a shift, less that of the dense net", 0.05),
    "A twentieth of a nat is a twentieth of the likelihood of a case. Twice the shift must raise "
    "the loss of one net; another initialisation must not.",
    (
        *_against_dense(less("shifted", "test")),
        Case(
            "smooth (twice the shift)",
            2 * (Cell("smooth", EQUAL_SIZE),),
            twice_the_shift,
            MUST_HOLD,
        ),
        Case(
            "regions (another initialisation)",
            (Cell("regions", ANEW), Cell("regions", TOP_2)),
            less("shifted", "test"),
            MUST_FAIL,
        ),
    ),
)

TIME = Claim(
    "Is a mixture as good as a dense net of equal size in less time?",
    "at equal size a sparse model trains faster",
    "popular articles; Fedus et al. (2021) say it at equal operations per token",
    "Until both are at the validation loss that the worse of the two reaches. In operations, which "
    "are the same on every machine; and in seconds of one processor of this machine, which at this "
    "size go to everything but the operations.",
    Criterion("log of the ratio of the times, mixture over dense net", 0.1, "less"),
    "A tenth is the least for which a reader would change the model. The mixture must be faster in "
    "operations than a dense net four times its size, and not than itself, initialised anew.",
    (
        *(
            Case(
                f"{problem} (in {unit})",
                (Cell(problem, TOP_2), Cell(problem, EQUAL_SIZE)),
                log_time_ratio(unit),
            )
            for problem in PROBLEMS
            for unit in ("operations", "seconds")
        ),
        Case(
            "regions (against dense 512)",
            (Cell("regions", TOP_2), Cell("regions", "dense 512")),
            log_time_ratio("operations"),
            MUST_HOLD,
        ),
        Case(
            "regions (another initialisation)",
            (Cell("regions", ANEW), Cell("regions", TOP_2)),
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
