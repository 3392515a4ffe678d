"""One question, several answers: a single net answers with their mean, a mixture with one of them.

The inverse problem of Bishop (2006, section 5.6) with the linear experts of Murphy (2012, section
11.2.4): see `moe_np.data.inverse`. Systems: one straight line, a net with one hidden layer under
squared error, and mixtures of linear experts by gradient, under the error of Nowlan and Hinton
(1991) whose width σ is fitted too, and by EM. The books print pictures and no numbers, so `PAPER`
has none; the exact conditional density is known and stands in the table's last row.
"""

import dataclasses
import warnings

import numpy as np

from moe_np.base.checks import integer
from moe_np.data import inverse
from moe_np.experiments.common.minimise import minimise
from moe_np.experiments.common.sweep import versions
from moe_np.mixtures import em
from moe_np.mixtures import jacobs1991 as model
from moe_np.mixtures import nowlan1991 as competing

BEST, EM = "mixture, best of all starts", "mixture by EM, best of all starts"
SYSTEMS = ("straight line", "net", "mixture, one start", BEST, EM, "the same, a σ for each expert")


@dataclasses.dataclass(frozen=True)
class Config:
    """The data and the net are Bishop's, three linear experts Murphy's; the rest is ours."""

    n_train: int = 300
    n_test: int = 1000
    experts: int = 3  # one for each branch
    hidden: int = 6  # Bishop, figure 5.19
    spread: float = 0.5  # of the starts
    sigma: float = 0.1  # at the start
    rounds: int = 6  # fit the experts and the gate at this σ, then σ; and again
    max_iter: int = 200  # of L-BFGS a round
    restarts: int = 10
    seeds: int = 25


PAPER = {}

# --- fitting --------------------------------------------------------------------------------------


def fit_mixture(rng, x, t, *, experts, spread, sigma, rounds, max_iter):
    """Linear experts and gate by L-BFGS on eq. 3 of width σ, σ by its maximum in between. Returns
    (params, σ, loss).

    The gate starts as wide as the experts: at 0 it would leave every expert the whole picture to
    begin with.
    """
    params = competing.init(rng, experts, 1, 1, 1, init_range=spread)
    params["U"], params["c"] = (
        rng.uniform(-spread, spread, (1, experts)),
        rng.uniform(-spread, spread, experts),
    )
    for _ in range(rounds):

        def loss_and_grads(p, sigma=sigma):
            return competing.mean_loss(p, x, x, t, sigma=sigma, kind="linear")

        params = minimise(loss_and_grads, params, max_iter=max_iter).params
        sigma = competing.refit_sigma(
            t, competing.system_forward(params, x, x, t, sigma=sigma, kind="linear")[1]
        )
    loss = competing.system_forward(params, x, x, t, sigma=sigma, kind="linear")[0]
    return params, sigma, competing.log_likelihood(loss, sigma, 1).mean()


def fit_net(rng, x, t, *, hidden, spread, max_iter=2000):
    """One hidden layer, linear output, squared error; σ is the deviation of its residuals. Returns
    (params, σ).
    """

    def loss_and_grads(params):
        loss, cache = model.net_forward(params, x, t, "linear")
        return float(loss.mean()), model.net_backward(np.full(len(x), 1 / len(x)), cache)[1]

    found = minimise(
        loss_and_grads, model.init_net(rng, hidden, 1, 1, init_range=spread), max_iter=max_iter
    )
    return found.params, float(np.sqrt(2 * found.loss))


def fit_forward(spec, train):
    """The same net on the forward problem, x given t. Returns (params, σ)."""
    rng, (x, t) = np.random.default_rng([spec["seed"], 3]), train
    return fit_net(rng, t, x, hidden=spec["hidden"], spread=spec["spread"])


def fit_line(x, t):
    """Least squares as a mixture of one expert. Returns (params, σ)."""
    design = np.concatenate([x, np.ones_like(x)], axis=1)
    (slope, height), *_ = np.linalg.lstsq(design, t, rcond=None)
    params = {
        "W": slope.reshape(1, 1, 1),
        "b": height.reshape(1, 1),
        "U": np.zeros((1, 1)),
        "c": np.zeros(1),
    }
    return params, float(np.sqrt(((t - model.predict(params, x, "linear")) ** 2).mean()))


def fit_em(rng, x, t, spec, covariance):
    """The same experts and gate by EM from as many starts. Returns (params, em.Fit)."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", em.ConvergenceWarning
        )  # a slow climb is as good as a finished one here
        found = em.fit(
            x,
            t,
            spec["experts"],
            family=em.Gaussian(covariance),
            rng=rng,
            restarts=spec["restarts"],
        )
    return {k: found.params[k] for k in ("W", "b", "U", "c")}, found


# --- one run --------------------------------------------------------------------------------------


def fit(spec):
    """Data and the fitted systems of a seed: (train (x, t), test (x, t), {system: (params, σ or
    Fit)}, likelihoods of all starts of the mixture by gradient).
    """
    data, starts, net, climbs = (np.random.default_rng([spec["seed"], i]) for i in (0, 1, 2, 4))
    train, test = (
        inverse.inverse_problem(spec["n_train"], data),
        inverse.inverse_problem(spec["n_test"], data),
    )
    options = {k: spec[k] for k in ("experts", "spread", "sigma", "rounds", "max_iter")}
    mixtures = [fit_mixture(starts, *train, **options) for _ in range(spec["restarts"])]
    likelihoods = [found[2] for found in mixtures]
    fitted = (
        fit_line(*train),
        fit_net(net, *train, hidden=spec["hidden"], spread=spec["spread"]),
        mixtures[0][:2],
        mixtures[int(np.argmax(likelihoods))][:2],
        *(fit_em(climbs, *train, spec, covariance) for covariance in ("shared", "expert")),
    )
    return train, test, dict(zip(SYSTEMS, fitted, strict=True)), likelihoods


def measure(params, density, x, t):
    """Log likelihood a case, and for the mean and the mode as predictions: root mean squared error,
    distance to the nearest branch, percent of predictions that cannot have led to x.
    """
    if isinstance(density, em.Fit):
        mean, mode, _ = competing.predict(params, x, x, kind="linear")
        likelihood = density.score(x, t)
    elif "U" in params:
        sigma, loss = (
            density,
            competing.system_forward(params, x, x, t, sigma=density, kind="linear")[0],
        )
        mean, mode, _ = competing.predict(params, x, x, kind="linear")
        likelihood = competing.log_likelihood(loss, sigma, 1).mean()
    else:
        sigma, mean = density, model.predict(params, x, "linear")
        mode = mean
        likelihood = competing.log_likelihood(
            ((t - mean) ** 2)[:, 0] / (2 * sigma**2), sigma, 1
        ).mean()
    found = {"log likelihood": float(likelihood)}
    for name, y in (("mean", mean), ("mode", mode)):
        found[f"{name}, error"] = float(np.sqrt(((t - y) ** 2).mean()))
        found[f"{name}, distance"] = float(inverse.distance_to_branch(x[:, 0], y[:, 0]).mean())
        found[f"{name}, impossible"] = 100 * float(1 - inverse.possible(x[:, 0], y[:, 0]).mean())
    return found


def run_one(spec):
    """All systems on the data of one seed: {system: measures on the test set}, the exact density,
    the starts.
    """
    train, test, systems, likelihoods = fit(spec)
    best = max(likelihoods)
    forward = fit_forward(spec, train)[1]
    return {
        "systems": {name: measure(*fitted, *test) for name, fitted in systems.items()},
        "exact": float(inverse.log_density(test[0][:, 0]).mean()),
        "starts at the best": float(np.mean([found > best - 0.01 for found in likelihoods])),
        "forward": 1
        - (forward / float(train[0].std())) ** 2,  # share of the variance that the net explains
        "inverse": 1 - (systems["net"][1] / float(train[1].std())) ** 2,
    }


def spec_of(config, seed):
    """What determines a run, as JSON-able data."""
    return {"seed": seed, **{k: v for k, v in dataclasses.asdict(config).items() if k != "seeds"}}


def run(config=None, *, seeds=None, sweep, quick=False):
    """All seeds (25; 5 if quick) and their summary: the dict that is written as one_to_many.json."""
    config = Config() if config is None else config
    seeds = (5 if quick else config.seeds) if seeds is None else integer("seeds", seeds)
    runs = sweep.map(run_one, [spec_of(config, seed) for seed in range(seeds)], "one to many")
    return {
        "name": "one_to_many",
        "config": dataclasses.asdict(config),
        "seeds": list(range(seeds)),
        "runs": runs,
        "summary": summarise(runs),
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs):
    """Mean and standard deviation (n − 1) of every number: {"systems": {name: {measure: [mean,
    sd]}}, ...}.
    """

    def over(values):
        return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]

    systems = {
        name: {k: over([one["systems"][name][k] for one in runs]) for k in runs[0]["systems"][name]}
        for name in SYSTEMS
    }
    rest = {
        k: over([one[k] for one in runs])
        for k in ("exact", "starts at the best", "forward", "inverse")
    }
    return {"systems": systems, **rest}


# --- reporting ------------------------------------------------------------------------------------

COLUMNS = ("error", "distance", "impossible")


def pm(pair, digits=2):
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"


def table(result):
    """The systems' numbers and what they say, as Markdown."""
    summary, n = result["summary"], len(result["seeds"])
    lines = [
        f"Test set, mean ± SD over {n} seed{'s' if n > 1 else ''} (new data and starts each). Log likelihood in nats a "
        "case; error: root mean square; distance: to the nearest of the branches at that x; impossible: percent of "
        "the predictions t that cannot have led to x. Mean: the blend of the experts; mode: the output of the expert "
        "with the largest gate probability.\n",
        "| system | log likelihood | answer | error | distance | impossible % |",
        "|---" * 6 + "|",
    ]
    for name, one in summary["systems"].items():
        answers = ("mean", "mode") if name not in SYSTEMS[:2] else ("mean",)
        for answer in answers:
            cells = [pm(one[f"{answer}, {k}"], 1 if k == "impossible" else 3) for k in COLUMNS]
            head = (name, pm(one["log likelihood"])) if answer == "mean" else ("", "")
            lines.append(f"| {' | '.join([*head, answer, *cells])} |")
    lines.append(f"| the exact density | {pm(summary['exact'])} | | | | |")
    return "\n".join([*lines, "", says(result)])


def says(result):
    """What was seen, from the numbers of this very run."""
    summary, runs, config = result["summary"], result["runs"], result["config"]
    one = {name: summary["systems"][name] for name in SYSTEMS}
    best, net = one[BEST], one["net"]

    def wins(a, b):
        return sum(a(r["systems"]) > b(r["systems"]) for r in runs)

    likelier = wins(lambda s: s[BEST]["log likelihood"], lambda s: s["net"]["log likelihood"])
    by_em = [
        r["systems"][EM]["log likelihood"] - r["systems"][BEST]["log likelihood"] for r in runs
    ]
    climbed = sum(gain > 0.01 for gain in by_em), sum(gain < -0.01 for gain in by_em)
    nearer = wins(lambda s: s["net"]["mean, impossible"], lambda s: s[BEST]["mode, impossible"])
    blended = best["mean, impossible"][0]
    mean_too = (
        "It is the density that a mixture gets right, not its mean: that is a blend like the net's, and "
        f"{blended:.0f} % of it is impossible as well."
        if blended > 0.5 * net["mean, impossible"][0]
        else f"Even its mean is better than the net's: {blended:.0f} % of it is impossible."
    )
    closer = "smaller" if net["mean, error"][0] < best["mode, error"][0] else "larger"
    return (
        f"**What was seen.** The net explains {100 * summary['forward'][0]:.0f} % of the variance of x given t and "
        f"{100 * summary['inverse'][0]:.0f} % of t given x. Of its answers {net['mean, impossible'][0]:.0f} % are "
        f"impossible; of the mixture's modes {best['mode, impossible'][0]:.1f} % ({nearer} of {len(runs)} seeds fewer "
        f"than the net). The mixture is the likelier model in {likelier} of {len(runs)} seeds, by "
        f"{best['log likelihood'][0] - net['log likelihood'][0]:.2f} nats a case, and "
        f"{summary['exact'][0] - best['log likelihood'][0]:.2f} short of the exact density. {mean_too} By squared "
        f"error the net's mean has the {closer} one ({net['mean, error'][0]:.3f} against "
        f"{best['mode, error'][0]:.3f} for the mode): that error asks for the mean.\n\n"
        f"**What falls short.** Of the {config['restarts']} starts {100 * summary['starts at the best'][0]:.0f} % come "
        "within .01 nats of the best of them; the others end in a local optimum, and a single start leaves "
        f"{one['mixture, one start']['mode, impossible'][0]:.0f} % of the modes impossible. Experts are straight lines "
        "here and the branches are not, which costs likelihood. EM ends in the same place as the gradient in "
        f"{len(runs) - sum(climbed)} of {len(runs)} seeds (test likelihoods within .01), in a better one in "
        f"{climbed[0]}, in a worse one in {climbed[1]}."
    )
