"""The pictures of a training run: curves.png, and routing.png where the model has routers."""

import json
import pathlib
from typing import Any

import numpy as np

from moe_np import plots


def records(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of metrics.jsonl: of the updates, and of the validations."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    parsed = [json.loads(line) for line in lines]
    updates = [record for record in parsed if "loss" in record]
    return updates, [record for record in parsed if "validation_loss" in record]


def write(folder: pathlib.Path) -> list[pathlib.Path]:
    """Draw the pictures of the run in this folder, and return their files. None without updates."""
    from matplotlib import pyplot as plt

    updates, validations = records(folder)
    if not updates:
        return []
    written = []
    with plots.style():
        for name, draw in (("curves.png", _curves), ("routing.png", _routing)):
            figure = draw(plt, updates, validations)
            if figure is not None:
                figure.savefig(folder / name, dpi=120)
                plt.close(figure)
                written.append(folder / name)
    return written


def _curves(plt, updates, validations):
    """Training and validation loss, the norm of the gradients, and the load-balancing loss."""
    steps = [record["step"] for record in updates]
    balance = np.array([record["balance"] for record in updates])
    has_balance = balance.size > 0 and balance.any()
    figure, axes = plt.subplots(1, 3 if has_balance else 2, figsize=(12, 3.6), layout="constrained")
    loss = [record["loss"] for record in updates]
    axes[0].plot(steps, loss, color=plots.GREY, linewidth=0.8, label="training, per minibatch")
    if validations:
        at = [record["step"] for record in validations]
        held_out = [record["validation_loss"] for record in validations]
        axes[0].plot(at, held_out, "o-", color=plots.BLUE, label="held-out text")
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))  # no loss lies below the axis
    axes[0].set(xlabel="update", ylabel="nats per token", title="loss")
    norms = [record["gradient_norm"] for record in updates]
    axes[1].plot(steps, norms, color=plots.BLACK, linewidth=0.8)
    axes[1].set(xlabel="update", yscale="log", title="global norm of the gradients")
    if has_balance:
        for layer, values in enumerate(balance.T):
            if values.any():
                axes[2].plot(steps, values, linewidth=0.9, label=f"layer {layer}")
        axes[2].legend(loc="upper left", bbox_to_anchor=(1, 1))
        title = "load-balancing loss, with its coefficient"
        axes[2].set(xlabel="update", ylabel="nats", title=title)
    return figure


def _routing(plt, updates, validations):
    """The share of each expert over the updates, a panel per layer that has a router."""
    layers = len(updates[0]["load"])
    if not layers:
        return None
    columns = min(layers, 4)
    rows = -(-layers // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.6 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.ravel()[layers:]:
        ax.remove()
    for number, ax in enumerate(axes.ravel()[:layers]):
        load = np.array([record["load"][number] for record in updates], float)
        share = 100 * load / np.maximum(load.sum(axis=1, keepdims=True), 1)
        last = updates[-1]["step"] + 0.5
        image = ax.imshow(
            share.T,
            aspect="auto",
            cmap="viridis",
            vmin=0,
            interpolation="nearest",
            extent=(updates[0]["step"] - 0.5, last, share.shape[1] - 0.5, -0.5),
        )
        ax.set(xlabel="update", ylabel="expert", title=f"router {number}")
        figure.colorbar(image, ax=ax, label="% of the assignments")
    return figure
