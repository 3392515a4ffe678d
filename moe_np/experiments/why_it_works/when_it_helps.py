"""When does a mixture help, and what does its gating network learn?

The same task with its structure present and taken away, against a network of equal size.
`moe_np.data.regimes` separates two things that go by one name: clusters in the inputs, and a rule
for each region. The clusters of Chen et al. (2022) add a third: whether anything tells the gate
which region it is.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayNC, ArrayND, Params, Rng
from moe_np.data import regimes
from moe_np.data.clusters import Clusters, clusters
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.minimise import minimise
from moe_np.experiments.common.reports import join
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    grouped,
    mean_and_sd,
    means,
    sign_of_difference,
)
from moe_np.experiments.why_it_works.tasks import fit_em
from moe_np.layers import diagnostics
from moe_np.mixtures.jacobs1991_net import init_net, net_backward, net_forward, net_predict
from moe_np.models import patch_cnn, patch_cnn_training
from moe_np.routing import kmeans

CELLS = {  # are the inputs clouds, has each region a rule -> words
    (True, True): "clouds, a rule for each",
    (True, False): "clouds, one smooth rule",
    (False, True): "one cloud, a rule for each region",
    (False, False): "one cloud, one smooth rule",
}
HIDDEN = 6  # units of the network: 25 parameters, where four linear experts have 24
E = 8  # cubic experts
J = 8  # filters per class of a cubic expert

# --- When does a mixture help? --------------------------------------------------------------------


def help_specs(config: Config, quick: bool) -> list[Spec]:
    """Cells × seeds, then patches with and without a sign of the cluster × seeds."""
    options = {"n": 400, "restarts": 10, "max_iter": 2000}
    regression = [
        {"task": "regimes", "clouds": clouds, "rules": rules, "seed": seed, **options}
        for clouds, rules in CELLS
        for seed in range(2 if quick else config.seeds)
    ]
    sizes = {"n": 2000, "epochs": 120, "single_epochs": 300}
    if quick:
        sizes = {"n": 400, "epochs": 60, "single_epochs": 30}
    patches = [
        {"task": "patches", "told": sign, "seed": seed, **sizes}
        for sign in (True, False)
        for seed in range(2 if quick else config.few)
    ]
    return regression + patches


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


def _help_regimes(spec):
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    structure = {"clouds": spec["clouds"], "rules": spec["rules"]}
    train, test = (regimes.draw(task, n, rng, **structure) for n in (spec["n"], 2000))
    mixture = fit_em(rng, train.x, train.d, 4, spec["restarts"])
    max_iter = spec["max_iter"]
    net = fit_net(rng, train.x, train.d, hidden=HIDDEN, restarts=2, max_iter=max_iter)
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

    The errors of the regressions are compared by the log of their ratio.
    """
    out = {"regimes": [], "patches": []}
    keys = ("task", "clouds", "rules", "told")
    completed = [{**dict.fromkeys(keys), **spec} for spec in specs]
    for (task, clouds, rules, sign), runs in grouped(completed, results, *keys).items():
        mixture, net = ([run[name] for run in runs] for name in ("mixture", "net"))
        if task == "regimes":
            ratio = np.log([a / b for a, b in zip(mixture, net, strict=True)])
            cell = {"clouds": clouds, "rules": rules, "log ratio": mean_and_sd(ratio)}
            cell |= {"mixture": geometric_mean(mixture), "net": geometric_mean(net)}
            cell |= {"wins": int((ratio < 0).sum()), "better": -sign_of_difference(ratio)}
        else:
            difference = [a - b for a, b in zip(mixture, net, strict=True)]
            cell = {"told": sign, **means(runs, "mixture", "net", "net, training")}
            cell["wins"] = sum(value > 0 for value in difference)
            cell["better"] = sign_of_difference(difference)
        out[task].append({**cell, "n": len(runs)})
    return out


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms."""
    return float(np.exp(np.mean(np.log(values))))


def help_verdict(summary: Result) -> tuple[str, str]:
    """The claim fails where a rule for each region lowers the log ratio of the errors, and by more
    than clouds do; otherwise it holds where clouds lower it.
    """
    cells = {(cell["clouds"], cell["rules"]): cell for cell in summary["regimes"]}
    both, clouds_only, rules_only, neither = (cells[key]["log ratio"][0] for key in CELLS)
    clouds = 0.5 * (both + clouds_only - rules_only - neither)
    rules = 0.5 * (both + rules_only - clouds_only - neither)
    helps = [CELLS[key] for key, cell in cells.items() if cell["better"] > 0]
    hurts = [CELLS[key] for key, cell in cells.items() if cell["better"] < 0]
    holds = "no" if rules < 0 and rules < clouds else "yes" if clouds < 0 else "partly"
    text = (
        "Against a net of equal size the mixture of linear experts is better where the data are: "
        f"{join(helps)}; worse where they are: {join(hurts)} (p < .01). Clouds in the inputs "
        f"change the mean log ratio of the errors by {clouds:+.2f}, a rule for each region by "
        f"{rules:+.2f}: "
    )
    if holds == "no":
        text += (
            "what makes a mixture worth having is that different rules hold in different regions, "
            "not that the inputs form clusters."
        )
    else:
        text += "clusters in the inputs do matter."
    return holds, text + _needed_or_enough(cells) + _sign_matters(summary["patches"])


def _needed_or_enough(cells):
    """Whether clusters are needed, and whether they are enough."""
    refuted = {
        "needed": cells[False, True]["better"] > 0,
        "enough": cells[True, False]["better"] <= 0,
    }
    words = [word for word, is_refuted in refuted.items() if is_refuted]
    if not words:
        return ""
    negation = "neither " if len(words) == 2 else "not "
    return f" Clusters of inputs are {negation}{' nor '.join(words)}."


def _sign_matters(patches):
    with_sign, no_sign = patches
    return (
        " And the gate must be able to see the region: on Chen et al.'s clusters the mixture is "
        f"right in {with_sign['mixture'][0]:.1f} % when a patch names the cluster and in "
        f"{no_sign['mixture'][0]:.1f} % when that patch says nothing (a single net of equal size, "
        f"{with_sign['net'][0]:.1f} and {no_sign['net'][0]:.1f} %)."
    )


HELP = Question(
    "When does a mixture help?",
    "when the data have natural clusters",
    help_specs,
    help_run,
    help_summary,
    help_verdict,
)

# --- What does the gate learn? --------------------------------------------------------------------


def learns_specs(config: Config, quick: bool) -> list[Spec]:
    """Cells × seeds."""
    return [
        {"clouds": clouds, "rules": rules, "seed": seed, "n": 400, "restarts": 10}
        for clouds, rules in CELLS
        for seed in range(2 if quick else config.fits)
    ]


def learns_run(spec: Spec) -> Result:
    """{"gate", "k-means"}: bits about the nearest centre.

    "gate" is the choice of the gate of 4 linear experts, "k-means" the clusters of the inputs.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    cases = regimes.draw(task, spec["n"], rng, clouds=spec["clouds"], rules=spec["rules"])
    mixture = fit_em(rng, cases.x, cases.d, 4, spec["restarts"])
    choice = mixture.gate(cases.x).argmax(axis=1)
    centroids, _ = kmeans.fit(rng, cases.x, 4, rounds=20)
    routing, _ = kmeans.route(centroids, cases.x, k=1, weights="one")
    groups = {"gate": choice, "k-means": routing.expert}
    return {
        name: diagnostics.mutual_information(expert, cases.region, rng).bits
        for name, expert in groups.items()
    }


def learns_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per cell; "ahead": the sign of the difference between gate and k-means."""
    cells = []
    for (clouds, rules), runs in grouped(specs, results, "clouds", "rules").items():
        ahead = sign_of_difference([run["gate"] - run["k-means"] for run in runs])
        cell = {"clouds": clouds, "rules": rules, **means(runs, "gate", "k-means")}
        cells.append({**cell, "ahead": ahead, "n": len(runs)})
    return cells


def learns_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where the gate follows the clouds and does not find the rules."""
    cells = {(cell["clouds"], cell["rules"]): cell for cell in summary}
    clouds_only = cells[True, False]
    rules_only = cells[False, True]
    follows_inputs = clouds_only["gate"][0] > 0.9 * clouds_only["k-means"][0]
    finds_rules = rules_only["ahead"] > 0
    holds = "yes" if follows_inputs and not finds_rules else "partly" if follows_inputs else "no"
    conclusion = "The gate follows the clouds of the inputs."
    if holds == "no":
        conclusion = (
            "The gate learns where each expert is right, which it can see only in the targets; it "
            "finds clusters where they are also that."
        )
    return holds, (
        "Where the inputs form clouds but one rule holds in all of them, the gate's choice has "
        f"{clouds_only['gate'][0]:.2f} bits about the cloud and k-means "
        f"{clouds_only['k-means'][0]:.2f}; where there are no clouds but a rule for each region, "
        f"the gate has {rules_only['gate'][0]:.2f} and k-means {rules_only['k-means'][0]:.2f}. "
        f"{conclusion}"
    )


LEARNS = Question(
    "What does the gate learn?",
    "to cluster the data",
    learns_specs,
    learns_run,
    learns_summary,
    learns_verdict,
)
