"""Any model trained by the loop of `moe_np.training`, stored under a key of all that determines it.

    with pretrained.stored_with(sweep):
        results = sweep.map(run_one, specs)

    def run_one(spec):
        model = trained_tree.trained(spec, training_of)   # trained, gone on with, or found there
        model.params                                      # of the least validation loss

`moe_np.experiments.common.pretrained` does the same for the models of `moe-np train` and their
text; this is for all others. A folder has

    state.safetensors    the newest checkpoint whole, which alone decides where training goes on
    best.safetensors     the parameters with the least validation loss
    metrics.jsonl        a line per update, and a line per validation

A kill at any moment loses the updates since the last checkpoint. They are made again, with the same
bits.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from moe_np import kernels
from moe_np.base.params import leaves, nest
from moe_np.base.types import Rng
from moe_np.experiments.common import pretrained, sources
from moe_np.experiments.common.experiment import Spec
from moe_np.language import run_pictures, run_state
from moe_np.models import safetensors
from moe_np.training import loop

BEST = "best.safetensors"


class Training(NamedTuple):
    """What is trained, and how: everything but the place where it is stored."""

    params: Any  # at initialisation
    gradients_of: Callable[[Any, Any, Rng], tuple[Any, Any]]  # as in `loop.train`
    minibatch_of: Callable[[Rng], Any]
    validation_loss: Callable[[Any], float]  # of parameters, nats per token
    options: loop.Options
    checkpoint_every: int  # updates; there is a validation at every checkpoint


class Trained(NamedTuple):
    """A model after its last update."""

    params: Any  # with the least validation loss
    updates: list[dict[str, Any]]  # step, loss, tokens, gradient_norm, processor_seconds
    validations: list[dict[str, Any]]  # step, validation_loss


def key(spec: Spec, training_of: Callable[[Spec], Training]) -> str:
    """The folder's name: it changes with the spec, the kernels, and the source that trains."""
    source = sources.fingerprint("moe_np.training.loop", training_of.__module__)
    code = [training_of.__module__, training_of.__qualname__, kernels.backend(), source]
    text = json.dumps([*code, spec], sort_keys=True)
    name = training_of.__module__.removeprefix("moe_np.experiments.").split(".")[0]
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def trained(spec: Spec, training_of: Callable[[Spec], Training]) -> Trained:
    """The model of a spec after its last update. It is trained, or gone on with, if need be.

    spec          JSON-able; it determines the result of `training_of`
    training_of   a function of a module; it is not called where the model is found finished

    To be called within `pretrained.stored_with`. Raises loop.NotFiniteError for NaN in the loss;
    the checkpoint before it stays.
    """
    folder = pathlib.Path(os.environ[pretrained.FOLDER]) / key(spec, training_of)
    finished = folder / "finished"
    if not finished.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _train(folder, training_of(spec))
        finished.touch()
    params = nest(safetensors.Reader(folder / BEST))
    return Trained(params, *run_pictures.records(folder))


def _train(folder, training):
    state, best = run_state.read(folder, loop.initial_state(training.params))
    run_state.cut_metrics(folder, state.number)
    start = time.process_time()
    for step in loop.train(state, training.gradients_of, training.minibatch_of, training.options):
        seconds = time.process_time() - start
        run_state.append(folder, _record(step, seconds))
        last = step.number == training.options.updates
        if step.number % training.checkpoint_every == 0 or last:
            loss = float(training.validation_loss(step.state.params))
            run_state.append(folder, {"step": step.number, "validation_loss": loss})
            if best is None or loss < best:
                best = loss
                safetensors.write(folder / BEST, leaves(step.state.params))
            run_state.write(folder, step.state, best)
        start = time.process_time()


def _record(step, seconds):
    return {
        "step": step.number,
        "loss": float(step.losses.task),
        "tokens": int(step.tokens),
        "gradient_norm": float(step.gradient_norm),
        "processor_seconds": round(seconds, 4),
    }
