"""EM here beside R's flexmix and mixtools: `python tests/mixtures/reference_em/compare.py`.

Prints a Markdown table: the best log likelihood and the seconds of processor time for all random
starts, theirs (ten; from reference.json) and ours (`em.fit` as it comes: twenty, a third of them to
the end). `--json FILE` stores it. For times from one machine run
`Rscript tests/mixtures/reference_em/fit.R` first, which makes reference.json again.

The models are the same: P(y | x) = Σ_i g_i(x) P(y | x, i) with a multinomial logit gate on all
inputs (flexmix: `concomitant = FLXPmultinom(~ x)`; mixtools: `hmeEM`) or constant shares (flexmix
without it; mixtools: `regmixEM`, `logisregmixEM`); Gaussian regressions with a variance each or one
for all (`arbvar = FALSE`), Gaussian clouds with a covariance matrix each and no inputs
(`FLXMCmvnorm(diagonal = FALSE)`), binomial or multinomial logistic regressions. flexmix divides
squares by n − p (FLXMCmvnorm by less than n as well) where the maximum of the likelihood divides by
n: that is the difference in its Gaussian rows.
"""

import argparse
import json
import pathlib
import time
import warnings

import numpy as np

from moe_np.mixtures import em

HERE = pathlib.Path(__file__).parent


def tasks():
    return json.loads((HERE / "tasks.json").read_text(encoding="utf-8"))


def reference():
    return json.loads((HERE / "reference.json").read_text(encoding="utf-8"))


def load(task):
    """Arguments of em.fit for one task: x, y, n_experts and the keywords."""
    text = (HERE / "data" / f"{task['data']}.csv").read_text(encoding="utf-8").splitlines()
    names = np.array(text[0].split(","))
    rows = np.array([line.split(",") for line in text[1:]], float)
    x, y = rows[:, np.char.startswith(names, "x")], rows[:, np.char.startswith(names, "y")]
    gate_x = x if task["gate"] == "x" else x[:, :0]
    if task["tool"] == "mvnorm":  # clouds: the gate sees x, the experts do not
        x = x[:, :0]
    if task["family"] == "categorical":
        return (
            x,
            y[:, 0].astype(int),
            task["experts"],
            {"family": em.Categorical(), "gate_x": gate_x},
        )
    return x, y, task["experts"], {"family": em.Gaussian(task["covariance"]), "gate_x": gate_x}


def ours(task, *, seed=0, tol=1e-8, max_iter=3000, **options):
    """(Fit, seconds)."""
    x, y, E, kwargs = load(task)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(
            x,
            y,
            E,
            rng=np.random.default_rng(seed),
            tol=tol,
            max_iter=max_iter,
            **kwargs,
            **options,
        )
    return fit, time.process_time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    theirs, rows = reference(), []
    ours(tasks()[0])  # imports are not part of the time
    print(
        ", ".join(f"{name} {version}" for name, version in theirs["versions"].items()), end="\n\n"
    )
    print(
        "| task | cases | experts | log likelihood, theirs | ours | difference "
        "| s, theirs | ours | times faster |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for task in tasks():
        fit, seconds = ours(task, seed=args.seed)
        r = theirs["tasks"][task["name"]]
        best = max(v for v in r["log_likelihoods"] if v is not None)
        row = (
            task["name"],
            len(fit.resp),
            task["experts"],
            best,
            fit.log_likelihood,
            r["seconds"],
            seconds,
        )
        rows.append(row)
        print(
            f"| {row[0]} | {row[1]} | {row[2]} | {best:.4f} | {fit.log_likelihood:.4f} "
            f"| {round(fit.log_likelihood - best, 4) + 0.0:+.4f} "
            f"| {r['seconds']:.2f} | {seconds:.2f} | {r['seconds'] / seconds:.1f} |"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
