"""How long a training step on the clusters takes: NumPy twin, compiled loops, and PyTorch where it
is installed.

    python -m moe_np.experiments.chen2022.bench [--rounds N] [--threads N]

A step is what the notebooks of Chen et al. 2022 do in an epoch: draw the noise, route 16,000
samples to 8 experts of 16 filters, forward, loss, dispatch entropy, backward, and the update
normalised by expert. The contestants take turns in one process, and the least of all rounds counts.

The statement in PyTorch is our own, in the dense form of the original: a one-hot dispatch tensor
hands every expert all samples, with zeros in place of those that are not its own, and autograd
finds the gradients. The parity test holds our loss and gradients against it.
"""

import argparse
import contextlib
import importlib.util
import os
import sys
import time

import numpy as np

from moe_np.base.checks import integer
from moe_np.data.clusters import notebook_clusters
from moe_np.experiments.chen2022 import replay
from moe_np.models import patch_cnn, patch_cnn_training

ACTIVATIONS = {"cubic": "moe_nonlinear", "linear": "moe_linear"}
LR, LR_ROUTER = (replay.TRAINING[k] for k in ("lr", "lr_router"))


# --- PyTorch --------------------------------------------------------------------------------------


def torch_loss(params, x, y, noise, *, activation, gate, loss):
    """Loss of the mixture on tensors, in PyTorch's own operations: -> (loss, expert (N,)).

    params {"w": (E, 2J, D), "b": (E, 2J), "theta": (E, D)}, x (N, P, D), y (N,), noise (N, E).
    `gate` and `loss` as in `moe_np.models.patch_cnn`.
    """
    import torch
    from torch.nn import functional as F

    w, b, theta = params["w"], params["b"], params["theta"]
    (N, P, D), (E, filters) = x.shape, b.shape
    h = F.conv1d(x.reshape(N, 1, P * D), theta[:, None, :], stride=D).sum(dim=2)
    noisy = h + noise
    expert = noisy.detach().argmax(dim=1)
    chosen = F.one_hot(expert, E).to(x.dtype)
    weight = ((noisy if gate == "raw" else h.softmax(dim=1)) * chosen).sum(dim=1)
    own = torch.einsum("npd,ne->enpd", x, chosen).reshape(E, N, 1, P * D)
    f = []
    for m in range(E):
        z = F.conv1d(own[m], w[m][:, None, :], b[m], stride=D)
        s = (z * z * z if activation == "cubic" else z).sum(dim=2)
        f.append(s.reshape(N, 2, filters // 2).sum(dim=2))
    out = torch.einsum("n,ne,enc->nc", weight, chosen, torch.stack(f))
    return F.cross_entropy(out.softmax(dim=1) if loss == "twice" else out, y), expert


def torch_gradients(params, x, y, noise, **variant):
    """`chen2022.gradients` by PyTorch's autograd, arrays in and out: -> (loss, expert, grads)."""
    import torch

    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    value, expert = torch_loss(
        leaves, torch.tensor(x), torch.tensor(y), torch.tensor(noise), **variant
    )
    value.backward()
    return value.item(), expert.numpy(), {k: v.grad.numpy() for k, v in leaves.items()}


def torch_steps(params, data, activation):
    """Training steps in PyTorch without end, as in the notebooks; each yields its loss and dispatch
    entropy.
    """
    import torch

    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    x, y, cluster = torch.tensor(data.x), torch.tensor(data.y), torch.tensor(data.cluster)
    E = len(leaves["w"])
    while True:
        for leaf in leaves.values():
            leaf.grad = None
        noise = torch.rand(len(x), E)
        value, expert = torch_loss(
            leaves, x, y, noise, activation=activation, gate="raw", loss="twice"
        )
        counts = torch.bincount(cluster * E + expert, minlength=4 * E).reshape(4, E).double()
        share = counts / counts.sum(dim=0).clamp(min=1)
        entropy = (counts.sum(dim=0) * torch.special.entr(share).sum(dim=0)).sum() / len(x)
        value.backward()
        with torch.no_grad():
            norm = sum(leaves[k].grad.reshape(E, -1).norm(dim=1) for k in ("w", "b"))
            norm = torch.where(norm > 0, norm, 1)
            leaves["w"] -= LR * leaves["w"].grad / norm[:, None, None]
            leaves["b"] -= LR * leaves["b"].grad / norm[:, None]
            leaves["theta"] -= LR_ROUTER * leaves["theta"].grad
        yield value.item(), float(entropy)


# --- timing ---------------------------------------------------------------------------------------


def our_steps(params, data, activation, backend):
    """The same with `chen2022.train_mixture`, held to one backend."""
    batch, draw = (
        patch_cnn_training.batch(data.x, data.y),
        patch_cnn_training.uniform_noise(np.random.default_rng(0)),
    )
    steps = patch_cnn_training.train_mixture(
        params,
        batch,
        data.cluster,
        draw,
        epochs=10**9,
        activation=activation,
        stop=False,
        **replay.TRAINING,
    )
    while True:
        with _held_to(backend):
            step = next(steps)
        yield step.loss, step.entropy


def measure(activation, *, rounds=20, warm=3):
    """Milliseconds a step, the least of all rounds: {"NumPy", "Numba", "PyTorch"} as far as they
    are installed.
    """
    data, _ = notebook_clusters(1, n_test=0)
    params = patch_cnn.init(np.random.default_rng(1), 8, 8, 50, scale=1e-3, dtype=np.float32)
    contestants = {"NumPy": our_steps(params, data, activation, "numpy")}
    if importlib.util.find_spec("numba"):
        contestants["Numba"] = our_steps(params, data, activation, "numba")
    if importlib.util.find_spec("torch"):
        contestants["PyTorch"] = torch_steps(params, data, activation)
    least = dict.fromkeys(contestants, np.inf)
    for i in range(warm + rounds):
        for name, steps in contestants.items():
            start = time.perf_counter()
            next(steps)
            if i >= warm:
                least[name] = min(least[name], 1e3 * (time.perf_counter() - start))
    return least


@contextlib.contextmanager
def _held_to(backend):
    before = os.environ.get("MOE_NP_KERNELS")
    os.environ["MOE_NP_KERNELS"] = backend
    try:
        yield
    finally:
        os.environ.pop("MOE_NP_KERNELS")
        if before is not None:
            os.environ["MOE_NP_KERNELS"] = before


def table(results):
    """{(activation, threads): {contestant: ms}} as Markdown, with PyTorch's time as a multiple of
    each of ours.
    """
    lines = [
        "| experts | threads | NumPy, ms | Numba, ms | PyTorch, ms | PyTorch / NumPy | PyTorch / Numba |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for (activation, threads), ms in results.items():
        ours, torch = [ms.get(k, np.nan) for k in ("NumPy", "Numba")], ms.get("PyTorch", np.nan)
        cells = [f"{v:.2f}" for v in (*ours, torch)] + [f"{torch / v:.1f}" for v in ours]
        lines.append(f"| {activation} | {threads} | {' | '.join(cells).replace('nan', '–')} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        metavar="N",
        help="steps each contestant takes (default: 20)",
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 and 2"
    )
    args = parser.parse_args(argv)
    results = {}
    for threads in args.threads:
        with _threads(integer("--threads", threads)):
            for activation in patch_cnn.ACTIVATIONS:
                results[activation, threads] = measure(
                    activation, rounds=integer("--rounds", args.rounds)
                )
    found = {k: v for k, v in os.environ.items() if k.startswith(("OPENBLAS_", "OMP_", "MKL_"))}
    print(table(results))
    print(f"\nBLAS settings in the environment: {found or 'none'}", file=sys.stderr)


@contextlib.contextmanager
def _threads(count):
    import threadpoolctl

    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(count)
    with threadpoolctl.threadpool_limits(limits=count, user_api="blas"):
        yield


if __name__ == "__main__":
    main()
