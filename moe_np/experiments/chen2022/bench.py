"""How long a training step on the clusters takes: the NumPy twin, the compiled loops, and PyTorch
where it is installed.

    python -m moe_np.experiments.chen2022.bench [--rounds N] [--threads N ...]

A step is what the notebooks of Chen et al. 2022 do in an epoch: draw the noise, route 16,000
samples to 8 experts of 16 filters, forward, loss, dispatch entropy, backward, and the update
normalised per expert. Timed is `moe_np.models.patch_cnn_training.train_mixture`. The contestants
take turns in one process, and the least time of all rounds counts.

The statement in PyTorch is our own, in the dense form of the original: a one-hot dispatch tensor
hands all samples to every expert, with zeros in place of those that went to other experts, and
autograd finds the gradients. The parity test compares our loss and gradients with it.
"""

import argparse
import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np

from moe_np.base.checks import integer
from moe_np.base.types import ArrayN, ArrayNE, ArrayNPD, Params
from moe_np.data.clusters import Clusters, notebook_clusters
from moe_np.experiments.chen2022.replay import TRAINING
from moe_np.experiments.common.reports import decimal, markdown_table
from moe_np.models import patch_cnn, patch_cnn_training

Tensor: TypeAlias = Any  # a torch.Tensor; PyTorch may not be installed
Steps: TypeAlias = Iterator[tuple[float, float]]  # loss and dispatch entropy of each step
Milliseconds: TypeAlias = dict[str, float]  # {contestant: the least time of a step}


# --- PyTorch --------------------------------------------------------------------------------------


def torch_loss(
    params: dict[str, Tensor],
    x: Annotated[Tensor, "N, P, D"],
    y: Annotated[Tensor, "N"],
    noise: Annotated[Tensor, "N, E"],
    *,
    activation: str,
    gate: str,
    loss: str,
) -> tuple[Tensor, Annotated[Tensor, "N"]]:
    """Loss of the mixture on tensors, in PyTorch's own operations: -> (loss, expert (N,)).

    params {"w": (E, 2J, D), "b": (E, 2J), "theta": (E, D)}. `gate` and `loss` as in
    `moe_np.models.patch_cnn`.
    """
    import torch
    from torch.nn import functional as F

    w, b, theta = params["w"], params["b"], params["theta"]
    N, P, D = x.shape
    E, filters = b.shape
    h = F.conv1d(x.reshape(N, 1, P * D), theta[:, None, :], stride=D).sum(dim=2)
    noisy = h + noise
    expert = noisy.detach().argmax(dim=1)
    chosen = F.one_hot(expert, E).to(x.dtype)
    weight = ((noisy if gate == "raw" else h.softmax(dim=1)) * chosen).sum(dim=1)
    dispatched = torch.einsum("npd,ne->enpd", x, chosen).reshape(E, N, 1, P * D)
    f = []
    for m in range(E):
        z = F.conv1d(dispatched[m], w[m][:, None, :], b[m], stride=D)
        s = (z * z * z if activation == "cubic" else z).sum(dim=2)
        f.append(s.reshape(N, 2, filters // 2).sum(dim=2))
    out = torch.einsum("n,ne,enc->nc", weight, chosen, torch.stack(f))
    return F.cross_entropy(out.softmax(dim=1) if loss == "twice" else out, y), expert


def torch_gradients(
    params: Params, x: ArrayNPD, y: ArrayN, noise: ArrayNE, **variant: str
) -> tuple[float, ArrayN, Params]:
    """`patch_cnn_training.gradients` by PyTorch's autograd: arrays -> (loss, expert, grads).

    variant   activation, gate and loss, as in `torch_loss`
    """
    import torch

    leaves = {name: torch.tensor(p, requires_grad=True) for name, p in params.items()}
    samples = (torch.tensor(x), torch.tensor(y), torch.tensor(noise))
    value, expert = torch_loss(leaves, *samples, **variant)
    value.backward()
    return value.item(), expert.numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def torch_steps(params: Params, data: Clusters, activation: str) -> Steps:
    """Training steps in PyTorch without end, as in the notebooks."""
    import torch

    leaves = {name: torch.tensor(p, requires_grad=True) for name, p in params.items()}
    x, y, cluster = torch.tensor(data.x), torch.tensor(data.y), torch.tensor(data.cluster)
    E = len(leaves["w"])
    variant = {"activation": activation, "gate": TRAINING["gate"], "loss": TRAINING["loss"]}
    while True:
        for leaf in leaves.values():
            leaf.grad = None
        noise = torch.rand(len(x), E)
        value, expert = torch_loss(leaves, x, y, noise, **variant)
        entropy = _torch_entropy(cluster, expert, E)
        value.backward()
        _torch_update(leaves)
        yield value.item(), entropy


def _torch_entropy(cluster, expert, n_experts):
    """The dispatch entropy, as `moe_np.layers.diagnostics` has it for arrays."""
    import torch

    pairs = torch.bincount(cluster * n_experts + expert, minlength=4 * n_experts)
    counts = pairs.reshape(4, n_experts).double()
    share = counts / counts.sum(dim=0).clamp(min=1)
    entropy = torch.special.entr(share).sum(dim=0)
    return float((counts.sum(dim=0) * entropy).sum() / len(expert))


def _torch_update(leaves):
    """A step of gradient descent; that of an expert has the length of the learning rate."""
    import torch

    lr, lr_router = TRAINING["lr"], TRAINING["lr_router"]
    E = len(leaves["w"])
    with torch.no_grad():
        norm = sum(leaves[name].grad.reshape(E, -1).norm(dim=1) for name in ("w", "b"))
        norm = torch.where(norm > 0, norm, 1)
        leaves["w"] -= lr * leaves["w"].grad / norm[:, None, None]
        leaves["b"] -= lr * leaves["b"].grad / norm[:, None]
        leaves["theta"] -= lr_router * leaves["theta"].grad


# --- timing ---------------------------------------------------------------------------------------


def our_steps(params: Params, data: Clusters, activation: str, backend: str) -> Steps:
    """The same steps by `patch_cnn_training.train_mixture`, with one of the backends."""
    steps = patch_cnn_training.train_mixture(
        params,
        patch_cnn_training.batch(data.x, data.y),
        data.cluster,
        patch_cnn_training.uniform_noise(np.random.default_rng(0)),
        epochs=10**9,
        activation=activation,
        stop=False,
        **TRAINING,
    )
    while True:
        with _backend(backend):
            step = next(steps)
        yield step.loss, step.entropy


def measure(activation: str, *, rounds: int = 20, warm: int = 3) -> Milliseconds:
    """Milliseconds per step, the least of all rounds, after `warm` rounds that do not count.

    -> {"NumPy", "Numba", "PyTorch"}, the last two where they are installed.
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
def _backend(name):
    before = os.environ.get("MOE_NP_KERNELS")
    os.environ["MOE_NP_KERNELS"] = name
    try:
        yield
    finally:
        os.environ.pop("MOE_NP_KERNELS")
        if before is not None:
            os.environ["MOE_NP_KERNELS"] = before


@contextlib.contextmanager
def _threads(count):
    import threadpoolctl

    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(count)
    with threadpoolctl.threadpool_limits(limits=count, user_api="blas"):
        yield


# --- the command ----------------------------------------------------------------------------------

HEAD = (
    *("experts", "threads", "NumPy, ms", "Numba, ms", "PyTorch, ms"),
    *("PyTorch / NumPy", "PyTorch / Numba"),
)


def table(results: Mapping[tuple[str, int], Milliseconds]) -> str:
    """{(activation, threads): {contestant: ms}} as Markdown, with PyTorch's time as a multiple of
    each of ours.
    """
    rows = []
    for (activation, threads), ms in results.items():
        numpy, numba, torch = (ms.get(name, np.nan) for name in ("NumPy", "Numba", "PyTorch"))
        times = [decimal(value) for value in (numpy, numba, torch)]
        rows.append([activation, threads, *times, *(decimal(torch / t, 1) for t in (numpy, numba))])
    return markdown_table(HEAD, rows)


def main(argv: list[str] | None = None) -> None:
    """Measure with every number of threads, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    rounds_help = "steps that each contestant takes (default: 20)"
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help=rounds_help)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 and 2"
    )
    args = parser.parse_args(argv)
    rounds = integer("--rounds", args.rounds)
    results = {}
    for count in args.threads:
        with _threads(integer("--threads", count)):
            for activation in patch_cnn.ACTIVATIONS:
                results[activation, count] = measure(activation, rounds=rounds)
    prefixes = ("OPENBLAS_", "OMP_", "MKL_")
    settings = {name: v for name, v in os.environ.items() if name.startswith(prefixes)}
    print(table(results))
    print(f"\nBLAS settings in the environment: {settings or 'none'}", file=sys.stderr)


if __name__ == "__main__":
    main()
