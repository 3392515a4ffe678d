"""When does a mixture help? The same task with its structure present and taken away, against a net
of equal size.

`moe_np.data.regimes` separates two things that go by one name: clusters in the inputs, and a rule
for each region. The clusters of Chen et al. (2022) add a third: whether anything tells the gate
which region it is.
"""

import numpy as np

from moe_np.data import regimes
from moe_np.data.clusters import clusters
from moe_np.experiments.common.minimise import minimise
from moe_np.experiments.why_it_works.question import (
    Question,
    differ,
    fit_em,
    grouped,
    listed,
    markdown,
    mean_sd,
    over,
    pm,
)
from moe_np.layers import diagnostics
from moe_np.mixtures import jacobs1991 as model
from moe_np.models import patch_cnn, patch_cnn_training
from moe_np.routing import kmeans


def fit_net(rng, x, d, hidden, starts, max_iter):
    """The best of `starts` nets with one hidden layer under squared error, by L-BFGS."""

    def loss_and_grads(params):
        loss, cache = model.net_forward(params, x, d, "linear")
        return float(loss.mean()), model.net_backward(np.full(len(x), 1 / len(x)), cache)[1]

    D, C = x.shape[1], d.shape[1]
    nets = (model.init_net(rng, hidden, D, C, init_range=0.5) for _ in range(starts))
    return min(
        (minimise(loss_and_grads, net, max_iter=max_iter) for net in nets),
        key=lambda found: found.loss,
    ).params


CELLS = {
    (True, True): "clouds, a rule for each",
    (True, False): "clouds, one smooth rule",
    (False, True): "one cloud, a rule for each region",
    (False, False): "one cloud, one smooth rule",
}


def help_specs(config, quick):
    regression = [
        {
            "task": "regimes",
            "clouds": clouds,
            "rules": rules,
            "seed": seed,
            "n": 400,
            "restarts": 10,
            "max_iter": 2000,
        }
        for clouds, rules in CELLS
        for seed in range(2 if quick else config.seeds)
    ]
    sizes = (
        {"n": 400, "epochs": 60, "single_epochs": 30}
        if quick
        else {"n": 2000, "epochs": 120, "single_epochs": 300}
    )
    patches = [
        {"task": "patches", "told": told, "seed": seed, **sizes}
        for told in (True, False)
        for seed in range(2 if quick else config.few)
    ]
    return regression + patches


def help_run(spec):
    return help_regimes(spec) if spec["task"] == "regimes" else help_patches(spec)


def help_regimes(spec):
    """Test errors of 4 linear experts (24 parameters) and of a net with 6 hidden units (25)."""
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    train, test = (
        regimes.draw(task, n, rng, clouds=spec["clouds"], rules=spec["rules"])
        for n in (spec["n"], 2000)
    )
    mixture = fit_em(rng, train.x, train.d, 4, spec["restarts"])
    net = fit_net(rng, train.x, train.d, hidden=6, starts=2, max_iter=spec["max_iter"])
    errors = (mixture.predict(test.x), model.predict(net, test.x, "linear"))
    return dict(
        zip(("mixture", "net"), (float(((test.d - y) ** 2).mean()) for y in errors), strict=True)
    )


def help_patches(spec):
    """Percent right of 8 cubic experts and of a single cubic net of as many parameters; `told`: the
    patch that names the cluster is there, or has been swapped with that of another sample drawn at
    random.
    """
    rng = np.random.default_rng([spec["seed"], 7])
    parts = clusters(1, spec["n"], spec["n"], rng)
    if not spec["told"]:
        parts = [untold(part, rng) for part in parts]
    train, test = (patch_cnn_training.batch(part.x, part.y) for part in parts)
    E, J, D = 8, 8, train.x.shape[2]
    params = patch_cnn.init(rng, E, J, D, scale=1e-3, dtype=np.float32)
    options = {"activation": "cubic", "gate": "softmax"}
    learn = {
        "loss": "once",
        "norm": "joint",
        "lr": 3e-3,
        "lr_router": 0.1,
        "epochs": spec["epochs"],
        "stop": False,
    }
    draw = patch_cnn_training.uniform_noise(rng)
    for step in patch_cnn_training.train_mixture(
        params, train, parts[0].cluster, draw, **options, **learn
    ):
        params = step.params
    right = patch_cnn_training.accuracy(
        patch_cnn_training.predict(params, test, None, **options)[0], test.y
    )
    filters = round((E * 2 * J * (D + 1) + E * D) / (2 * (D + 1)))
    single = patch_cnn.init(rng, 1, filters, D, dtype=np.float32)
    del single["theta"]
    for step in patch_cnn_training.train_single(
        single, train, epochs=spec["single_epochs"], activation="cubic", lr=1e-2
    ):
        single = step.params
    alone, known = (
        float(
            patch_cnn_training.accuracy(
                patch_cnn_training.single_predict(single, of, activation="cubic"), of.y
            )
        )
        for of in (test, train)
    )
    return {"mixture": float(right), "net": alone, "net, training": known}


def untold(part, rng):
    """The same samples, but each with the centre patch of another one: nothing tells which cluster
    it is.
    """
    place = (part.x @ part.centers.T).max(axis=2).argmax(axis=1)
    rows, x = np.arange(len(part.x)), part.x.copy()
    x[rows, place] = part.x[rows, place][rng.permutation(len(part.x))]
    return part._replace(x=x)


def help_summary(specs, runs):
    out = {"regimes": [], "patches": []}
    pairs = list(zip(specs, runs, strict=True))
    for cell in CELLS:
        own = [r for s, r in pairs if s["task"] == "regimes" and (s["clouds"], s["rules"]) == cell]
        ratio = np.log([r["mixture"] / r["net"] for r in own])
        means = {k: float(np.exp(np.mean(np.log([r[k] for r in own])))) for k in ("mixture", "net")}
        wins, better = int((ratio < 0).sum()), -differ(ratio)
        one = {
            "clouds": cell[0],
            "rules": cell[1],
            **means,
            "log ratio": mean_sd(ratio),
            "wins": wins,
            "better": better,
        }
        out["regimes"].append({**one, "n": len(own)})
    for told in (True, False):
        own = [r for s, r in pairs if s["task"] == "patches" and s["told"] == told]
        difference = [r["mixture"] - r["net"] for r in own]
        one = {
            "told": told,
            **over(own, "mixture", "net", "net, training"),
            "wins": sum(d > 0 for d in difference),
        }
        out["patches"].append({**one, "better": differ(difference), "n": len(own)})
    return out


def help_rows(summary):
    rows = [
        [
            CELLS[c["clouds"], c["rules"]],
            f"{c['mixture']:.4f}",
            f"{c['net']:.4f}",
            pm(c["log ratio"]),
            f"{c['wins']} of {c['n']}",
        ]
        for c in summary["regimes"]
    ]
    first = markdown(
        [
            "regression, test error (geometric mean)",
            "mixture",
            "net",
            "log ratio",
            "mixture better",
        ],
        rows,
    )
    rows = [
        [
            "the centre patch names the cluster" if c["told"] else "it is another sample's",
            pm(c["mixture"], 1),
            f"{pm(c['net'], 1)} (training {c['net, training'][0]:.1f})",
            f"{c['wins']} of {c['n']}",
        ]
        for c in summary["patches"]
    ]
    return (
        first
        + "\n\n"
        + markdown(["Chen et al.'s clusters, % right", "mixture", "net", "mixture better"], rows)
    )


def help_verdict(summary):
    at = {(c["clouds"], c["rules"]): c for c in summary["regimes"]}
    ratio = {cell: c["log ratio"][0] for cell, c in at.items()}
    clouds = 0.5 * (
        ratio[True, True] + ratio[True, False] - ratio[False, True] - ratio[False, False]
    )
    rules = 0.5 * (
        ratio[True, True] + ratio[False, True] - ratio[True, False] - ratio[False, False]
    )
    helps = [CELLS[cell] for cell, c in at.items() if c["better"] > 0]
    hurts = [CELLS[cell] for cell, c in at.items() if c["better"] < 0]
    told, untold_ = summary["patches"]
    holds = "no" if rules < 0 and rules < clouds else "yes" if clouds < 0 else "partly"
    text = (
        f"Against a net of equal size the mixture of linear experts is better where the data are: "
        f"{listed(helps) if helps else 'nothing'}; worse where they are: {listed(hurts) if hurts else 'nothing'} "
        f"(p < .01). Clouds in the inputs change the mean log ratio of the errors by {clouds:+.2f}, a rule for each "
        f"region by {rules:+.2f}: "
    )
    text += (
        "what makes a mixture worth having is that different rules hold in different regions, not that the inputs "
        "form clusters."
        if holds == "no"
        else "clusters in the inputs do matter."
    )
    needed, enough = at[False, True]["better"] <= 0, at[True, False]["better"] > 0
    if not needed or not enough:
        words = [word for word, wrong in (("needed", not needed), ("enough", not enough)) if wrong]
        text += f" Clusters of inputs are {'neither ' if len(words) == 2 else 'not '}{' nor '.join(words)}."
    text += (
        " And the gate must be able to see the region: on Chen et al.'s clusters the mixture is right in "
        f"{told['mixture'][0]:.1f} % when a patch names the cluster and in {untold_['mixture'][0]:.1f} % when that "
        f"patch says nothing (a single net of equal size, {told['net'][0]:.1f} and {untold_['net'][0]:.1f} %)."
    )
    return holds, text


HELP = Question(
    "When does a mixture help?",
    "when the data have natural clusters",
    help_specs,
    help_run,
    help_summary,
    help_rows,
    help_verdict,
)

# --- What does the gate learn? --------------------------------------------------------------------


def learns_specs(config, quick):
    return [
        {"clouds": clouds, "rules": rules, "seed": seed, "n": 400, "restarts": 10}
        for clouds, rules in CELLS
        for seed in range(2 if quick else config.fits)
    ]


def learns_run(spec):
    """Bits about the nearest centre in the choice of the gate of 4 linear experts, and in k-means
    of the inputs.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    cases = regimes.draw(task, spec["n"], rng, clouds=spec["clouds"], rules=spec["rules"])
    gate = fit_em(rng, cases.x, cases.d, 4, spec["restarts"]).gate(cases.x).argmax(axis=1)
    groups = kmeans.route(kmeans.fit(rng, cases.x, 4, rounds=20)[0], cases.x, k=1, weights="one")[
        0
    ].expert
    found = (diagnostics.mutual_information(own, cases.region, rng).bits for own in (gate, groups))
    return dict(zip(("gate", "k-means"), found, strict=True))


def learns_summary(specs, runs):
    out = []
    for (clouds, rules), own in grouped(specs, runs, "clouds", "rules").items():
        ahead = differ([r["gate"] - r["k-means"] for r in own])
        out.append(
            {
                "clouds": clouds,
                "rules": rules,
                **over(own, "gate", "k-means"),
                "ahead": ahead,
                "n": len(own),
            }
        )
    return out


def learns_rows(summary):
    rows = [[CELLS[c["clouds"], c["rules"]], pm(c["gate"]), pm(c["k-means"])] for c in summary]
    return markdown(
        ["bits about the nearest of four centres (2 at most)", "the gate", "k-means of the inputs"],
        rows,
    )


def learns_verdict(summary):
    at = {(c["clouds"], c["rules"]): c for c in summary}
    clusters_only, rules_only = at[True, False], at[False, True]
    follows_inputs = clusters_only["gate"][0] > 0.9 * clusters_only["k-means"][0]
    finds_rules = rules_only["ahead"] > 0
    holds = "yes" if follows_inputs and not finds_rules else "partly" if follows_inputs else "no"
    return holds, (
        f"Where the inputs form clouds but one rule holds in all of them, the gate's choice has "
        f"{clusters_only['gate'][0]:.2f} bits about the cloud and k-means {clusters_only['k-means'][0]:.2f}; where "
        f"there are no clouds but a rule for each region, the gate has {rules_only['gate'][0]:.2f} and k-means "
        f"{rules_only['k-means'][0]:.2f}. "
        + (
            "The gate learns where each expert is right, which it can see only in the targets; it finds clusters where "
            "they are also that."
            if holds == "no"
            else "The gate follows the clouds of the inputs."
        )
    )


LEARNS = Question(
    "What does the gate learn?",
    "to cluster the data",
    learns_specs,
    learns_run,
    learns_summary,
    learns_rows,
    learns_verdict,
)
