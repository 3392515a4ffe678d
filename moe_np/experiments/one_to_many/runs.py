"""The runs of the inverse problem: a single net and mixtures of linear experts on the same data.

The problem of Bishop (2006, section 5.6) has several right outputs for one input, see
`moe_np.data.inverse`; the linear experts are those of Murphy (2012, section 11.2.4). Systems: one
straight line, a net with one hidden layer under squared error, mixtures of linear experts by the
gradient, under the error of Nowlan and Hinton (1991) whose width σ is fitted too, and by EM. One
run fits all of them.
"""

import dataclasses
import warnings
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import Params, Rng
from moe_np.data import inverse
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.minimise import minimise
from moe_np.mixtures import em, jacobs1991, nowlan1991

LINE = "straight line"
NET = "net"
FIRST = "mixture, one start"
BEST = "mixture, best of all starts"
EM = "mixture by EM, best of all starts"
EM_WIDTHS = "the same, a σ for each expert"
MODELS = (LINE, NET, FIRST, BEST, EM, EM_WIDTHS)

ArrayN1 = Annotated[np.ndarray, "N, 1"]
Cases = tuple[ArrayN1, ArrayN1]  # x, t


@dataclasses.dataclass(frozen=True)
class Config:
    """The data and the net are Bishop's, three linear experts Murphy's; the rest is ours."""

    n_train: int = 300
    n_test: int = 1000
    experts: int = 3  # one per branch
    hidden: int = 6  # Bishop, figure 5.19
    spread: float = 0.5  # initial weights are uniform in ± this
    sigma: float = 0.1  # initial width
    rounds: int = 6  # in each, the experts and the gate are fitted at this σ, and then σ
    max_iter: int = 200  # of L-BFGS per round
    restarts: int = 10
    seeds: int = 25


PAPER = {}  # the books print pictures and no numbers

# --- Fitting --------------------------------------------------------------------------------------


def fit_mixture(
    rng: Rng,
    x: ArrayN1,
    t: ArrayN1,
    *,
    experts: int,
    init_range: float,
    sigma: float,
    rounds: int,
    max_iter: int,
) -> tuple[Params, float, float]:
    """Linear experts and gate by L-BFGS on eq. 3 of width σ, and σ by its maximum in between:
    (params, σ, mean log likelihood).

    The initial weights of the gate are drawn from the same range as those of the experts. At 0 they
    would give every expert all cases in the first round.
    """
    params = nowlan1991.init(rng, experts, 1, 1, 1, init_range=init_range)
    params["U"] = rng.uniform(-init_range, init_range, (1, experts))
    params["c"] = rng.uniform(-init_range, init_range, experts)
    for _ in range(rounds):
        loss_and_grads = nowlan1991.mean_loss_of(x, x, t, sigma=sigma, kind="linear")
        params = minimise(loss_and_grads, params, max_iter=max_iter).params
        _, cache = nowlan1991.system_forward(params, x, x, t, sigma=sigma, kind="linear")
        sigma = nowlan1991.refit_sigma(t, cache)
    return params, sigma, mixture_likelihood(params, sigma, x, t)


def mixture_likelihood(params: Params, sigma: float, x: ArrayN1, t: ArrayN1) -> float:
    """The mean log likelihood of a mixture of linear experts with width σ, in nats per case."""
    loss, _ = nowlan1991.system_forward(params, x, x, t, sigma=sigma, kind="linear")
    return nowlan1991.log_likelihood(loss, sigma, 1).mean()


def fit_net(
    rng: Rng, x: ArrayN1, t: ArrayN1, *, hidden: int, init_range: float, max_iter: int = 2000
) -> tuple[Params, float]:
    """One hidden layer, linear output, squared error: (params, σ), σ the deviation of its
    residuals.
    """

    def loss_and_grads(params):
        loss, cache = jacobs1991.net_forward(params, x, t, "linear")
        return float(loss.mean()), jacobs1991.net_backward(np.full(len(x), 1 / len(x)), cache)[1]

    params = jacobs1991.init_net(rng, hidden, 1, 1, init_range=init_range)
    minimum = minimise(loss_and_grads, params, max_iter=max_iter)
    return minimum.params, float(np.sqrt(2 * minimum.loss))


def fit_forward(spec: Spec, train: Cases) -> tuple[Params, float]:
    """The same net on the forward problem, x given t: (params, σ)."""
    x, t = train
    rng = np.random.default_rng([spec["seed"], 3])
    return fit_net(rng, t, x, hidden=spec["hidden"], init_range=spec["spread"])


def fit_line(x: ArrayN1, t: ArrayN1) -> tuple[Params, float]:
    """Least squares as a mixture of one expert: (params, σ)."""
    design = np.concatenate([x, np.ones_like(x)], axis=1)
    (slope, height), *_ = np.linalg.lstsq(design, t, rcond=None)
    expert = {"W": slope.reshape(1, 1, 1), "b": height.reshape(1, 1)}
    params = {**expert, "U": np.zeros((1, 1)), "c": np.zeros(1)}
    return params, float(np.sqrt(((t - jacobs1991.predict(params, x, "linear")) ** 2).mean()))


def fit_em(
    rng: Rng, x: ArrayN1, t: ArrayN1, *, experts: int, restarts: int, covariance: str
) -> tuple[Params, em.Fit]:
    """The same experts and gate by EM, the best of `restarts`: (params, Fit)."""
    family = em.Gaussian(covariance)
    with warnings.catch_warnings():  # a climb that is stopped is as good as a finished one here
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fitted = em.fit(x, t, experts, family=family, rng=rng, restarts=restarts)
    return {name: fitted.params[name] for name in ("W", "b", "U", "c")}, fitted


# --- One run --------------------------------------------------------------------------------------


class Fitted(NamedTuple):
    """The data of a seed and all systems, fitted."""

    train: Cases
    test: Cases
    systems: dict[str, tuple[Params, float | em.Fit]]  # parameters, and σ or the Fit
    likelihoods: list[float]  # of all restarts of the mixture by the gradient


def fit(spec: Spec) -> Fitted:
    """Draw the data of a seed and fit all systems."""
    data, restarts, net, em_restarts = (
        np.random.default_rng([spec["seed"], i]) for i in (0, 1, 2, 4)
    )
    train = inverse.inverse_problem(spec["n_train"], data)
    test = inverse.inverse_problem(spec["n_test"], data)
    options = {name: spec[name] for name in ("experts", "sigma", "rounds", "max_iter")}
    options["init_range"] = spec["spread"]
    mixtures = [fit_mixture(restarts, *train, **options) for _ in range(spec["restarts"])]
    likelihoods = [likelihood for _, _, likelihood in mixtures]
    options = {"experts": spec["experts"], "restarts": spec["restarts"]}
    systems = {
        LINE: fit_line(*train),
        NET: fit_net(net, *train, hidden=spec["hidden"], init_range=spec["spread"]),
        FIRST: mixtures[0][:2],
        BEST: mixtures[int(np.argmax(likelihoods))][:2],
        EM: fit_em(em_restarts, *train, covariance="shared", **options),
        EM_WIDTHS: fit_em(em_restarts, *train, covariance="expert", **options),
    }
    return Fitted(train, test, systems, likelihoods)


def measure(params: Params, density: float | em.Fit, x: ArrayN1, t: ArrayN1) -> Result:
    """What is measured of a system.

    -> {"log likelihood" in nats per case}, and for the mean and the mode as predictions {"mean,
    error" (root mean squared), "mean, distance" (to the nearest branch), "mean, impossible"
    (percent of predictions that cannot have led to x)}.
    """
    if "U" in params:
        mean, mode, _ = nowlan1991.predict(params, x, x, kind="linear")
    else:
        mean = mode = jacobs1991.predict(params, x, "linear")
    if isinstance(density, em.Fit):
        likelihood = density.score(x, t)
    elif "U" in params:
        likelihood = mixture_likelihood(params, density, x, t)
    else:
        loss = ((t - mean) ** 2)[:, 0] / (2 * density**2)
        likelihood = nowlan1991.log_likelihood(loss, density, 1).mean()
    result = {"log likelihood": float(likelihood)}
    for name, y in (("mean", mean), ("mode", mode)):
        places = (x[:, 0], y[:, 0])
        result[f"{name}, error"] = float(np.sqrt(((t - y) ** 2).mean()))
        result[f"{name}, distance"] = float(inverse.distance_to_branch(*places).mean())
        result[f"{name}, impossible"] = 100 * float(1 - inverse.possible(*places).mean())
    return result


def run_one(spec: Spec) -> Result:
    """Fit all systems to the data of one seed.

    -> {"systems": {name: what `measure` has on the test set}, "exact": log likelihood of the exact
    density, "starts at the best": share of the restarts, "forward" and "inverse": share of the
    variance that the net explains}.
    """
    train, test, systems, likelihoods = fit(spec)
    best = max(likelihoods)
    widths = {"forward": fit_forward(spec, train)[1], "inverse": systems[NET][1]}
    explained = {
        name: 1 - (widths[name] / float(values.std())) ** 2
        for name, values in zip(widths, train, strict=True)
    }
    return {
        "systems": {name: measure(*fitted, *test) for name, fitted in systems.items()},
        "exact": float(inverse.log_density(test[0][:, 0]).mean()),
        "starts at the best": float(np.mean([value > best - 0.01 for value in likelihoods])),
        **explained,
    }


def spec_of(config: Config, seed: int) -> Spec:
    """What determines a run, as JSON-able data."""
    spec = {"seed": seed, **dataclasses.asdict(config)}
    del spec["seeds"]
    return spec


# --- What several runs show -----------------------------------------------------------------------


def summarise(runs: list[Result]) -> Result:
    """Median and quartiles of every number: {"systems": {name: {measure: [median, lower quartile,
    upper quartile]}}, ...}. A mean would be that of the few nets that run away just beyond
    the training inputs.
    """
    systems = {}
    for name, measures in runs[0]["systems"].items():
        values = {key: [run["systems"][name][key] for run in runs] for key in measures}
        systems[name] = {key: _quartiles(v) for key, v in values.items()}
    keys = ("exact", "starts at the best", "forward", "inverse")
    return {"systems": systems, **{key: _quartiles([run[key] for run in runs]) for key in keys}}


def _quartiles(values):
    return np.quantile(values, (0.5, 0.25, 0.75)).tolist()
