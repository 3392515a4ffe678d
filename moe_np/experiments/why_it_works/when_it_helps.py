"""When does a mixture help?

The same task with its structure present and taken away, against a network of equal size.
`moe_np.data.regimes` separates three things that go by one name: clusters in the inputs, a rule for
each region, and whether that rule is one that an expert can have. The clusters of Chen et al.
(2022) add a fourth: whether anything tells the gate which region it is.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayNC, ArrayND, Params, Rng
from moe_np.data import regimes
from moe_np.data.clusters import Clusters, clusters
from moe_np.experiments.common.controlled_claims import (
    BESIDE,
    MUST_FAIL,
    MUST_HOLD,
    of_role,
    verdict_with_controls,
    with_role,
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, cases_with, decide, in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.minimise import minimise
from moe_np.experiments.common.reports import interval, join, plural
from moe_np.experiments.common.statistics import paired_interval
from moe_np.experiments.common.verdicts import HOLDS
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    mean_and_sd,
    means,
)
from moe_np.experiments.why_it_works.tasks import fit_em
from moe_np.mixtures.jacobs1991_net import init_net, net_backward, net_forward, net_predict
from moe_np.models import patch_cnn, patch_cnn_training

RULES = {  # of the targets -> words
    "straight": "a straight rule for each region",
    "waves": "a rule for each region that no expert has",
    "smooth": "one smooth rule",
}
INPUTS = {True: "clouds", False: "one cloud"}
CELLS = tuple((clouds, rule) for clouds in INPUTS for rule in RULES)
ROLES = {  # of the cells of one cloud; those with clouds are the cases
    (False, "straight"): MUST_HOLD,
    (False, "waves"): BESIDE,
    (False, "smooth"): MUST_FAIL,
}
HIDDEN = 6  # units of the network: 25 parameters, where four linear experts have 24
E = 8  # cubic experts
J = 8  # filters per class of a cubic expert


def help_specs(config: Config, quick: bool) -> list[Spec]:
    """Cells × seeds, then patches with and without a sign of the cluster × seeds."""
    options = {"n": 400, "restarts": 2 if quick else 10, "max_iter": 2000}
    regression = [
        {"task": "regimes", "clouds": clouds, "rule": rule, "seed": seed, **options}
        for clouds, rule in CELLS
        for seed in first_seeds(2 if quick else _seeds(config, rule))
    ]
    sizes = {"n": 2000, "epochs": 120, "single_epochs": 300}
    if quick:
        sizes = {"n": 400, "epochs": 60, "single_epochs": 30}
    patches = [
        {"task": "patches", "told": sign, "seed": seed, **sizes}
        for sign in (True, False)
        for seed in first_seeds(2 if quick else config.few)
    ]
    return regression + patches


def _seeds(config, rule):
    """With straight rules the difference varies most beside its size."""
    return config.pairs if rule == "straight" else config.smooth


def help_run(spec: Spec) -> Result:
    """{"mixture", "net"}: test errors of a regression, or percent right on the patches."""
    return _help_regimes(spec) if spec["task"] == "regimes" else _help_patches(spec)


def fit_net(
    rng: Rng, x: ArrayND, d: ArrayNC, *, hidden: int, restarts: int, max_iter: int
) -> Params:
    """The best of `restarts` networks with one hidden layer under squared error, by L-BFGS."""

    def loss_and_grads(params):
        loss, cache = net_forward(params, x, d, "linear")
        return float(loss.mean()), net_backward(np.full(len(x), 1 / len(x)), cache)[1]

    D = x.shape[1]
    C = d.shape[1]
    nets = (init_net(rng, hidden, D, C, init_range=0.5) for _ in range(restarts))
    minima = (minimise(loss_and_grads, net, max_iter=max_iter) for net in nets)
    return min(minima, key=lambda minimum: minimum.loss).params


def rules_of(task: regimes.Task, spec: Spec) -> bool | regimes.Waves:
    """What `regimes.draw` takes for the rule of the spec; waves have a generator of their own."""
    if spec["rule"] == "waves":
        return regimes.make_waves(task, np.random.default_rng([spec["seed"], 1]))
    return spec["rule"] == "straight"


def _help_regimes(spec):
    """Mixture and network have equally many starts, and the best fit of each is taken."""
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    structure = {"clouds": spec["clouds"], "rules": rules_of(task, spec)}
    train, test = (regimes.draw(task, n, rng, **structure) for n in (spec["n"], 2000))
    starts = spec["restarts"]
    mixture = fit_em(rng, train.x, train.d, 4, starts)
    options = {"hidden": HIDDEN, "restarts": starts, "max_iter": spec["max_iter"]}
    net = fit_net(rng, train.x, train.d, **options)
    outputs = {"mixture": mixture.predict(test.x), "net": net_predict(net, test.x, "linear")}
    return {name: float(((test.d - y) ** 2).mean()) for name, y in outputs.items()}


def _help_patches(spec):
    """8 cubic experts, and a single cubic network of as many parameters. `told`: the patch that
    names the cluster is there; otherwise it has been swapped with that of another sample.
    """
    rng = np.random.default_rng([spec["seed"], 7])
    parts = clusters(1, spec["n"], spec["n"], rng)
    if not spec["told"]:
        parts = [without_sign(part, rng) for part in parts]
    train, test = (patch_cnn_training.batch(part.x, part.y) for part in parts)
    D = train.x.shape[2]
    params = patch_cnn.init(rng, E, J, D, scale=1e-3, dtype=np.float32)
    options = {"activation": "cubic", "gate": "softmax"}
    learning = {"loss": "once", "norm": "joint", "lr": 3e-3, "lr_router": 0.1, "stop": False}
    draw = patch_cnn_training.uniform_noise(rng)
    for step in patch_cnn_training.train_mixture(
        params, train, parts[0].cluster, draw, epochs=spec["epochs"], **options, **learning
    ):
        params = step.params
    out, _ = patch_cnn_training.predict(params, test, None, **options)
    accuracy = float(patch_cnn_training.accuracy(out, test.y))
    filters = round((E * 2 * J * (D + 1) + E * D) / (2 * (D + 1)))
    net_test, net_train = _single_network(rng, filters, train, test, spec["single_epochs"])
    return {"mixture": accuracy, "net": net_test, "net, training": net_train}


def _single_network(rng, filters, train, test, epochs):
    """Percent right of a single cubic network: (test, training)."""
    params = patch_cnn.init(rng, 1, filters, train.x.shape[2], dtype=np.float32)
    del params["theta"]
    for step in patch_cnn_training.train_single(
        params, train, epochs=epochs, activation="cubic", lr=1e-2
    ):
        params = step.params
    accuracies = []
    for batch in (test, train):
        out = patch_cnn_training.single_predict(params, batch, activation="cubic")
        accuracies.append(float(patch_cnn_training.accuracy(out, batch.y)))
    return accuracies


def without_sign(part: Clusters, rng: Rng) -> Clusters:
    """The same samples, each with the centre patch of another one: the cluster cannot be told."""
    place = (part.x @ part.centers.T).max(axis=2).argmax(axis=1)
    rows = np.arange(len(part.x))
    x = part.x.copy()
    x[rows, place] = part.x[rows, place][rng.permutation(len(part.x))]
    return part._replace(x=x)


def help_summary(specs: Sequence[Spec], results: Sequence[Result]) -> Result:
    """{"regimes": one dict per cell, "patches": one with and one without the sign}.

    The errors of the regressions are compared by the log of their ratio, mixture over network.
    """
    out = {"regimes": [], "patches": []}
    keys = ("task", "clouds", "rule", "told")
    completed = [{**dict.fromkeys(keys), **spec} for spec in specs]
    for (task, clouds, rule, sign), runs in grouped(completed, results, *keys).items():
        mixture, net = ([run[name] for run in runs] for name in ("mixture", "net"))
        if task == "regimes":
            ratio = np.log([a / b for a, b in zip(mixture, net, strict=True)])
            cell = {"clouds": clouds, "rule": rule, "log ratio": mean_and_sd(ratio)}
            cell |= {"mixture": geometric_mean(mixture), "net": geometric_mean(net)}
            cell |= {"wins": int((ratio < 0).sum()), "log ratios": ratio.tolist()}
        else:
            difference = [a - b for a, b in zip(mixture, net, strict=True)]
            cell = {"told": sign, **means(runs, "mixture", "net", "net, training")}
            cell["wins"] = sum(value > 0 for value in difference)
        out[task].append({**cell, "n": len(runs)})
    return out


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms."""
    return float(np.exp(np.mean(np.log(values))))


CRITERION = criterion_of_table("log of the test errors' ratio, mixture over network", 0.1, "less")
REASON = (
    "A tenth of the error is the least that a reader would choose a model for. The claim is on the "
    "three cases with clouds. The control in which the mixture must be ahead is one cloud with a "
    "straight rule for each region, its own class of models without any clusters of inputs; the "
    "one in which it must not be is one cloud with one smooth rule, the network's. If a control "
    "fails, nothing can be told. An earlier form had clouds with straight rules as a control and "
    "as a case, so it could not refute the claim; the seeds are new, and their numbers were chosen "
    "by the spread of earlier ones."
)


def help_decisions(summary: Result) -> list[Decision]:
    """One per cell: whether the mixture has the lower error."""
    decisions = []
    for cell in summary["regimes"]:
        clouds, rule = cell["clouds"], cell["rule"]
        decision = decide(cell_name(clouds, rule), CRITERION, cell["log ratios"])
        role = ROLES.get((clouds, rule))
        decisions.append(with_role(role, decision) if role else decision)
    return decisions


def cell_name(clouds: bool, rule: str) -> str:
    """A cell in words."""
    return f"{INPUTS[clouds]}, {RULES[rule]}"


def help_verdict(summary: Result) -> tuple[str, str]:
    """The claim is on the cells with clouds; both controls have to come out."""
    decisions = help_decisions(summary)
    holds = verdict_with_controls(decisions)
    text = words_of_controls(decisions)
    text += (
        "That the mixture of linear experts is better than a network of equal size: "
        f"{in_words(decisions)} {_effect_of_clouds(summary['regimes'])}"
    )
    if cases_with(of_role(decisions), HOLDS) == [cell_name(True, "straight")]:
        text += (
            " So clusters of inputs are not enough: the rule in each cluster has to be one that an "
            "expert can have."
        )
    if all(decision["verdict"] == HOLDS for decision in of_role(decisions, MUST_HOLD)):
        text += " And they are not needed: the same holds in one cloud with a rule for each region."
    return holds, text + _sign_matters(summary["patches"])


def _effect_of_clouds(cells):
    """What clouds change, seed by seed, for each rule."""
    ratios = {(cell["clouds"], cell["rule"]): cell["log ratios"] for cell in cells}
    level = CRITERION.level
    changes = [
        f"{interval(paired_interval(ratios[True, rule], ratios[False, rule], level=level))} "
        f"({words})"
        for rule, words in RULES.items()
    ]
    return f"Clouds instead of one cloud change the log ratio, seed by seed, by {join(changes)}."


def _sign_matters(patches):
    with_sign, no_sign = patches
    return (
        " And the gate must be able to see the region: on Chen et al.'s clusters the mixture is "
        f"right in {with_sign['mixture'][0]:.1f} % when a patch names the cluster and in "
        f"{no_sign['mixture'][0]:.1f} % when that patch says nothing (a single net of equal size, "
        f"{with_sign['net'][0]:.1f} and {no_sign['net'][0]:.1f} %; means of "
        f"{plural(with_sign['n'], 'run')} each)."
    )


HELP = Question(
    "When does a mixture help?",
    "when the data have natural clusters",
    "popular articles; no paper is named",
    "The articles' clusters are clusters of inputs that have a rule of their own. Whether inputs "
    "form clusters, and whether a rule is one that an expert can have, are kept apart: three kinds "
    "of rules, in clouds and in one cloud. The rival is a network of equal size.",
    help_specs,
    help_run,
    help_summary,
    help_verdict,
    CRITERION,
    REASON,
    help_decisions,
)
