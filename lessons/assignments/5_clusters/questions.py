"""Questions of assignment 5: the cluster experiment of Chen et al. 2022 (arXiv 2208.02813)."""

import numpy as np

from moe_np.coursework import Question, close
from moe_np.layers import diagnostics
from moe_np.models import patch_cnn

TITLE = "Assignment 5: four clusters, and who gets them"
AFTER = "lesson 12"
HOURS = "three to four"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-6)  # float32 will do
TRAINED = close(2e-3, 1e-4)  # after a few passes


def near(wanted, got, inputs):
    """Also right within 1e-5 of the largest value, for sums in which much cancels."""
    return close(1e-4, 1e-5 * max(1, np.abs(wanted).max()))(wanted, got)


# --- Samples --------------------------------------------------------------------------------------


def draws(rng, N, K, D):
    cluster = rng.integers(K, size=N)
    return {
        "y": rng.integers(2, size=N),
        "cluster": cluster,
        "other": (cluster + rng.integers(1, K, size=N)) % K,
        "sign": rng.choice([-1, 1], size=N),
        "alpha": rng.uniform(0.5, 2, N),
        "beta": rng.uniform(1, 2, N),
        "gamma": rng.uniform(0.5, 3, N),
        "noise": rng.normal(size=(N, D)) / np.sqrt(D),
        "order": rng.permuted(np.tile(np.arange(4), (N, 1)), axis=1),
    }


def sample_cases(rng):
    cases = []
    for N, K, D in ((24, 4, 9), (12, 2, 5), (15, 3, 8), (9, 5, 4), (1, 2, 4)):
        if 2 * K <= D:
            basis = np.linalg.qr(rng.normal(size=(D, 2 * K)))[0].T
        else:
            basis = rng.normal(size=(2 * K, D))
        cases.append((basis[:K], basis[K:], draws(rng, N, K, D)))
    return cases


def make_samples(features, centers, draws):
    x = np.empty((len(draws["y"]), 4, features.shape[1]))
    for n in range(len(x)):
        d = {name: values[n] for name, values in draws.items()}
        k = d["cluster"]
        patches = (
            d["alpha"] * (2 * d["y"] - 1) * features[k],
            d["beta"] * centers[k],
            d["gamma"] * d["sign"] * features[d["other"]],
            d["noise"],
        )
        x[n] = [10 * patches[i] for i in d["order"]]
    return x


# --- Experts --------------------------------------------------------------------------------------


def experts(rng, N, P, D, E, J, idle=()):
    """w (E, 2J, D), x (N, P, D), expert (N,): some experts have no samples."""
    w = rng.normal(size=(E, 2 * J, D)) * 0.7
    x = rng.normal(size=(N, P, D))
    return w, x, rng.choice([m for m in range(E) if m not in idle], size=N)


def output_cases(rng):
    cases = []
    settings = (((7, 4, 3, 3, 2), (2,)), ((6, 3, 5, 2, 3), ()), ((1, 4, 4, 3, 1), ()))
    # all samples to one of many experts; one patch; one number per patch; one expert
    settings += (((5, 1, 2, 4, 2), (0, 1, 3)), ((4, 2, 1, 2, 1), (0,)), ((3, 2, 2, 1, 2), ()))
    for sizes, idle in settings:
        for activation in ("cubic", "linear"):
            cases.append((*experts(rng, *sizes, idle), activation))
    return cases


def with_biases(w):
    """Parameters of the package's experts, which have biases; the paper's have none."""
    return {"w": w, "b": np.zeros(w.shape[:2])}


def expert_outputs(w, x, expert, activation):
    return patch_cnn.expert_forward(with_biases(w), x, expert, activation=activation)[0]


def gradient_cases(rng):
    """In the last case a gradient by differences of the loss would take minutes."""
    cases = [*output_cases(rng), (*experts(rng, 300, 4, 50, 20, 8), "cubic")]
    return [(rng.normal(size=(len(case[1]), 2)), *case) for case in cases]


def expert_gradient(df, w, x, expert, activation):
    _, cache = patch_cnn.expert_forward(with_biases(w), x, expert, activation=activation)
    return patch_cnn.expert_backward(df, cache)[1]["w"]


# --- Router ---------------------------------------------------------------------------------------


def gap(s):
    """How far the largest of a row is above the next, over all rows: float32 may decide a tie."""
    top = np.sort(s, axis=1)
    return (top[:, -1] - top[:, -2]).min()


def routed(rng, N, P, D, E, size, clear):
    """theta, x, noise; every choice is at least `clear` away from a tie."""
    while True:
        theta = rng.normal(size=(E, D)) * size
        x = rng.normal(size=(N, P, D))
        noise = rng.random((N, E))
        if gap(x.sum(axis=1) @ theta.T + noise) > clear:
            return theta, x, noise


def route_cases(rng):
    """Small logits, in which the noise decides; logits in the thousands; both in one batch."""
    theta, x, noise = routed(rng, 8, 3, 4, 3, 0.1, 1e-3)
    some = np.arange(8) % 3 == 0
    x[some] *= 1e4
    while gap(x[some].sum(axis=1) @ theta.T) < 20:
        x[some] = rng.normal(size=x[some].shape) * 1e4
    return [
        (theta, x, noise),
        routed(rng, 1, 2, 3, 5, 0.3, 1e-3),
        routed(rng, 20, 4, 3, 4, 0.1, 1e-3),
        routed(rng, 6, 3, 5, 3, 0.5, 1e-3),
        routed(rng, 5, 2, 4, 4, 1000, 20),
    ]


def route(theta, x, noise):
    h, _ = patch_cnn.router_forward({"theta": theta}, x)
    return patch_cnn.gate_forward(h, noise, gate="softmax")[0]


def router_cases(rng):
    """Small logits, logits in the thousands for some samples; one large case."""
    cases = []
    settings = ((7, 4, 3, 4), (5, 3, 4, 2), (1, 2, 3, 3), (6, 2, 3, 3), (300, 4, 500, 30))
    for number, (N, P, D, E) in enumerate(settings):
        theta = rng.normal(size=(E, D)) / D**0.5
        x = rng.normal(size=(N, P, D))
        if number == 3:
            x[::2] *= 3000
        cases.append((rng.normal(size=N), theta, x, rng.integers(E, size=N)))
    return cases


def router_gradient(dweight, theta, x, expert):
    h, cache = patch_cnn.router_forward({"theta": theta}, x)
    _, gate = patch_cnn.gate_weight(h, None, expert, gate="softmax")
    return patch_cnn.router_backward(patch_cnn.gate_backward(dweight, gate), cache)[1]["theta"]


# --- Training -------------------------------------------------------------------------------------


def train_cases(rng):
    """The first has more experts than samples. No case has a choice that is nearly a tie."""
    cases = []
    for sizes, activation, size, lr, lr_router, sure in (
        ((3, 4, 5, 2, 1), "cubic", 0.2, 0.05, 0.3, 0.1),
        ((24, 6, 3, 2, 8), "cubic", 0.2, 0.05, 0.3, 0.1),
        ((20, 5, 4, 1, 10), "linear", 0.2, 0.05, 0.3, 0.1),
        ((12, 4, 3, 2, 4), "linear", 0.2, 0.2, 0.0, 0.1),
        ((6, 4, 3, 2, 2), "cubic", 0.2, 0.05, 0.3, 3000),
        ((12, 4, 3, 2, 1), "cubic", 0.5, 0.05, 0.3, 0.01),
        ((50, 40, 6, 30, 3), "cubic", 0.05, 0.05, 0.3, 0.1),
    ):
        N, D, E, J, passes = sizes
        closest = 0.0
        while closest < (20 if sure > 1 else 1e-3):
            w = rng.normal(size=(E, 2 * J, D)) * size
            x = rng.normal(size=(N, 3, D))
            x[::3] *= 8 if sure < 0.1 else 1  # outputs in the thousands, of some samples
            theta = rng.normal(size=(E, D)) * sure
            y = rng.integers(2, size=N)
            noise = rng.random((passes, N, E))
            case = (w, theta, x, y, noise, activation, lr, lr_router)
            *_, closest = trained(*case)
        cases.append(case)
    return cases


def trained(w, theta, x, y, noise, activation, lr, lr_router):
    """(w, theta, how far the closest choice was from a tie)."""
    closest = np.inf
    for noise_t in noise:
        params = {**with_biases(w), "theta": theta}
        out, cache = patch_cnn.mixture_forward(
            params, x, noise_t, activation=activation, gate="softmax"
        )
        _, loss = patch_cnn.loss_forward(out, y, loss="once")
        _, grads = patch_cnn.mixture_backward(patch_cnn.loss_backward(1.0, loss), cache)
        norm = np.sqrt((grads["w"] ** 2).sum(axis=(1, 2), keepdims=True))
        w = w - lr * grads["w"] / np.where(norm > 0, norm, 1)
        theta = theta - lr_router * grads["theta"]
        closest = min(closest, gap(cache.h + noise_t))
        if norm[norm > 0].min() < 1e-3:  # the direction of a step would be rounding
            closest = 0.0
    return w, theta, closest


def train(*inputs):
    return trained(*inputs)[:2]


# --- Measuring ------------------------------------------------------------------------------------


def measure_cases(rng):
    """Experts without samples, clusters without samples, clusters with an expert of their own."""
    cases = []
    for N, E, K, idle in ((40, 5, 4, 1), (9, 8, 3, 1), (30, 3, 5, 1), (20, 2, 5, 0), (9, 3, 3, 0)):
        expert = np.where(rng.random(N) < 0.6, 0, rng.integers(E - idle, size=N))
        expert[:2] = [0, E - idle - 1]
        out = rng.normal(size=(N, 2))
        y = rng.integers(2, size=N)
        cases.append((out, y, expert, rng.integers(K, size=N), E, K))
    cluster = rng.integers(3, size=20)  # three of four clusters occur
    cases.append((rng.normal(size=(20, 2)), rng.integers(2, size=20), 3 - cluster, cluster, 6, 4))
    N = 70_000  # more in one place of the table than 16 bits hold
    expert = (np.arange(N) % 100 == 0).astype(np.int64)
    cases.append((rng.normal(size=(N, 2)), rng.integers(2, size=N), expert, 2 * expert, 2, 3))
    for N in (1, 4):  # all right, and all wrong
        out = rng.permuted([[0.0, 1.0]] * N, axis=1)
        y = out.argmax(axis=1) if N == 1 else out.argmin(axis=1)
        cases.append((out, y, np.zeros(N, np.int64), rng.integers(2, size=N), 1, 2))
    return cases


def measure(out, y, expert, cluster, n_experts, n_clusters):
    counts = diagnostics.table(expert, cluster, shape=(n_experts, n_clusters))
    return 100 * (out.argmax(axis=1) == y).mean(), counts, diagnostics.entropy_of_table(counts)


QUESTIONS = (
    Question("q1_samples", "make_samples", 2, sample_cases, make_samples, SINGLE),
    Question("q2_experts", "expert_outputs", 2, output_cases, expert_outputs, near),
    Question("q3_expert_gradient", "expert_gradient", 3, gradient_cases, expert_gradient, near),
    Question("q4_route", "route", 2, route_cases, route, SINGLE),
    Question("q5_router_gradient", "router_gradient", 3, router_cases, router_gradient, near),
    Question("q6_train", "train", 4, train_cases, train, TRAINED),
    Question("q7_measure", "measure", 2, measure_cases, measure, SINGLE),
    Question("q8_explain", None, 4, None, None),
)
