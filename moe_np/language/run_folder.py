"""A training run of a language model in a folder, which goes on after an interruption.

    run.json             what determines the run: model, text, settings, number of updates
    config.json          the model of the newest checkpoint, as Hugging Face lays it out where there
    model.safetensors    is such a layout
    tokeniser.json       its tokeniser
    state.safetensors    the newest checkpoint whole: parameters, running means, number of updates
    best/                the model with the least validation loss: config, model, tokeniser
    metrics.jsonl        a line per update, and a line per validation

All files are written atomically. `state.safetensors` alone decides where a run goes on, so a kill
at any moment loses the updates since it was written and nothing else: they are made again, with the
same bits. Other settings for the same folder are an error.
"""

import json
import os
import pathlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks, files, optim
from moe_np.base.checks import InputError
from moe_np.data.text import tokenisers
from moe_np.data.text.windows import random_windows
from moe_np.language import (
    folder_lock,
    kinds,
    model_files,
    objectives,
    run_progress,
    run_request,
    run_state,
)
from moe_np.language.corpus import Corpus
from moe_np.language.evaluation import Evaluation, evaluate
from moe_np.language.run_progress import Progress
from moe_np.training import loop

WARM_UP = 3  # updates before the clock of `updates_in` starts
TIMED = 5  # updates that it times
OTHER_SETTINGS = "other settings, as a smaller learning_rate, need another folder"


class Settings(NamedTuple):
    """What `--set` can change, besides the model's Config and the options of the loop."""

    batch: int = 16  # windows per minibatch
    length: int = 128  # tokens per window
    tokeniser: str = "byte_pairs"  # or "words", "bytes"
    vocabulary: int = 4096
    balance: float | None = None  # coefficient of the load-balancing losses; None: the model's own
    validation_tokens: int = 16384  # at the beginning of the held-out text, per validation


class Run(NamedTuple):
    """A run: what run.json says, and what follows from it and the text."""

    folder: pathlib.Path
    model: str
    config: Any
    options: loop.Options
    settings: Settings
    checkpoint_every: int
    tokeniser: Any
    train: np.ndarray  # tokens
    validation: np.ndarray


# --- what determines a run ------------------------------------------------------------------------


def open_run(
    folder: str | os.PathLike,
    corpus: Corpus,
    *,
    model: str = "mixtral",
    updates: int | None = None,
    minutes: float | None = None,
    changes: dict[str, Any] | None = None,
    checkpoint_every: int = 100,
    measure: bool = True,
) -> Run:
    """A new run in this folder, or the one that is stored there.

    updates    number of updates; None with `minutes`: as many as this machine makes in that time
    changes    {name: value} of Settings, loop.Options or the model's Config
    measure    whether the number for `minutes` is measured here; False: a new run has 0 until
               `train_over_ranks.measured`

    Raises InputError for a folder with another run, one that cannot be written, and for values that
    do not fit.
    """
    folder = files.writable_folder(folder)
    settings, options, of_config = sorted_changes(model, changes or {})
    request = {
        "model": model,
        "text": corpus.name,
        "digest": corpus.digest(),
        "settings": settings._asdict(),
        "options": {**options._asdict(), "updates": None},
        "config": of_config,
        "checkpoint_every": checks.integer("--checkpoint-every", checkpoint_every, minimum=1),
        "steps": updates,
        "minutes": minutes,
    }
    request = json.loads(json.dumps(request))  # as it is read again: lists for tuples
    stored = run_request.stored_request(folder)
    if stored is not None:
        run_request.refuse_another(folder, request, stored)
        updates = stored["updates"]
    tokeniser = _tokeniser(folder, settings, corpus.train, stored is not None)
    run = Run(
        folder,
        model,
        kinds.config_of(model, tokeniser.size, settings.length, of_config),
        options,
        settings,
        request["checkpoint_every"],
        tokeniser,
        tokeniser.encode(corpus.train),
        tokeniser.encode(corpus.validation)[: settings.validation_tokens],
    )
    if len(run.train) <= settings.length or len(run.validation) < 2:
        raise InputError(
            f"--text: wanted more than {settings.length} tokens for training and some to hold out, "
            f"got {len(run.train)} and {len(run.validation)}"
        )
    if stored is None:
        # an update to try: what does not fit is told before there is a run.json
        next(loop.train(_initial_state(run), *_functions(run), options))
        if minutes is None:
            checks.integer("--steps", updates, minimum=1)
        else:
            checks.number("--minutes", minutes, greater_than=0)
            updates = 0
    if minutes is not None and updates == 0 and measure:
        to_time = options._replace(updates=WARM_UP + TIMED)
        updates = updates_in(minutes, loop.train(_initial_state(run), *_functions(run), to_time))
    if stored is None or not (folder / "tokeniser.json").exists():
        tokenisers.save(folder / "tokeniser.json", tokeniser)
    if stored is None or stored["updates"] != updates:
        run_request.store_request(folder, {**(stored or request), "updates": updates})
    options = options._replace(updates=updates)
    return run._replace(options=loop.check(options) if updates else options)


def sorted_changes(
    model: str, changes: dict[str, Any]
) -> tuple[Settings, loop.Options, dict[str, Any]]:
    """The values of --set, each where it belongs; the last are those of the model's Config."""
    settings = Settings()
    options = loop.Options(updates=1)
    of_config = {}
    for name, value in changes.items():
        if name in Settings._fields:
            settings = settings._replace(**{name: value})
        elif name in loop.Options._fields and name != "updates":
            options = options._replace(**{name: value})
        else:
            of_config[name] = value
    for name in ("batch", "length", "vocabulary", "validation_tokens"):
        checks.size(f"--set {name}", getattr(settings, name))
    if settings.balance is not None:
        checks.number("--set balance", settings.balance, minimum=0)
    checks.choice("--set tokeniser", settings.tokeniser, tuple(tokenisers.TRAIN))
    loop.check(options)
    known = kinds.KINDS[checks.choice("--model", model, tuple(kinds.KINDS))].model.Config._fields
    for name in of_config:
        if name not in known:
            names = (*Settings._fields, *loop.Options._fields[1:], *known)
            raise InputError(f"--set: wanted one of {', '.join(names)}, got {name}")
    return settings, options, of_config


def _tokeniser(folder, settings, text, has_run):
    """That of the run. Without one a file may be left of a command that was refused."""
    path = folder / "tokeniser.json"
    if has_run and path.exists():
        return tokenisers.load(path)
    return tokenisers.train(settings.tokeniser, text, settings.vocabulary)


def updates_in(minutes: float, steps: Iterator[Any]) -> int:
    """How many updates this machine makes in so many minutes, measured after a warm-up.

    steps   makes an update per item, WARM_UP + TIMED at least
    """
    for _ in range(WARM_UP):
        next(steps)
    start = time.perf_counter()
    for _ in range(TIMED):
        next(steps)
    return max(1, int(60 * minutes * TIMED / (time.perf_counter() - start)))


# --- training -------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What a run trains, where that is something other than a new model (`moe_np.adapt`)."""

    initial: Callable[[], loop.State]  # before the first update
    gradients_of: Callable[..., Any]  # as in `loop.train`
    minibatch_of: Callable[..., Any]
    params_of: Callable[[Any], Any]  # what is trained -> the parameters of the model
    decays: Callable[[str], bool] = optim.decays_by_name


def parts_of(run: Run) -> Parts:
    """The parts of `moe-np train`: a new model, and its parameters themselves."""
    return Parts(lambda: _initial_state(run), *_functions(run), lambda params: params)


def train(run: Run, parts: Parts | None = None) -> Generator[Progress | Evaluation, None, None]:
    """Go on with a run until its last update: one Progress per update, and an Evaluation of the
    held-out text after every checkpoint.

    A checkpoint is written every `checkpoint_every` updates, after the last one, and when the
    caller closes the iterator between two updates. An exception within an update writes nothing,
    because the arrays are half changed then. Raises InputError where another process trains in the
    folder, and loop.UpdateError for NaN and for numbers that became too large: it says in which
    update and layer, and which checkpoint there is.
    """
    with folder_lock.held(run.folder):
        try:
            yield from _train(run, parts or parts_of(run))
        except loop.UpdateError as error:
            advice = "" if run_state.updates(run.folder) else f": {OTHER_SETTINGS}"
            error.args = (f"{error}; {run_state.kept(run.folder)}{advice}",)
            raise


def _train(run, parts):
    state, best = run_state.read(run.folder, parts.initial())
    saved = state.number
    run_state.cut_metrics(run.folder, state.number)
    start = run_progress.clocks()
    try:
        functions = (parts.gradients_of, parts.minibatch_of)
        for step in loop.train(state, *functions, run.options, decays=parts.decays):
            state = step.state
            now = run_progress.clocks()
            record = run_progress.of_step(step, now - start)
            start = now
            run_state.append(run.folder, record._asdict())
            yield record
            if state.number % run.checkpoint_every == 0 or state.number == run.options.updates:
                params = parts.params_of(state.params)
                held_out = _validated(run, params, state.number)
                run_state.append(run.folder, {"step": state.number, **_numbers(held_out)})
                best = _save(run, state, params, best, held_out)
                saved = state.number
                yield held_out
                start = run_progress.clocks()
    except GeneratorExit:
        if state.number != saved:
            run_state.write(run.folder, state, best)
        raise


def validate(run: Run, params: Any) -> Evaluation:
    """The loss of these parameters on the held-out text of the run."""
    model = kinds.KINDS[run.model].model
    return evaluate(
        lambda ids, targets: objectives.logits_and_targets(model, params, ids, targets, run.config),
        run.validation,
        run.tokeniser,
        length=run.settings.length,
        batch=run.settings.batch,
        first_whole=objectives.predicts_all(model),
    )


def _validated(run, params, number):
    """`validate` in training: what the model refuses, or NaN, is the doing of the last update."""
    try:
        held_out = validate(run, params)
    except InputError as error:
        raise loop.UpdateError(number, f"the held-out text after it: {error}") from error
    if not np.isfinite(held_out.loss):
        raise loop.NotFiniteError(number, "the loss of the held-out text after it")
    return held_out


def _functions(run):
    """`gradients_of` and `minibatch_of` of the training loop."""
    kind = kinds.KINDS[run.model]
    model = kind.model
    coefficient = run.settings.balance
    options: dict[str, Any] = {"workspace": {}}
    if coefficient is not None:
        options["losses"] = tuple((coefficient, loss) for loss in kind.losses if coefficient)

    def gradients_of(params, minibatch, rng):
        ids, targets = minibatch
        return objectives.loss_and_grads(model, params, ids, targets, run.config, rng, **options)

    def minibatch_of(rng):
        return random_windows(run.train, rng, batch=run.settings.batch, length=run.settings.length)

    return gradients_of, minibatch_of


def _initial_state(run):
    model = kinds.KINDS[run.model].model
    rng = np.random.default_rng([run.options.seed, 0])
    return loop.initial_state(model.init(rng, run.config))


def _numbers(held_out):
    return {
        "validation_loss": held_out.loss,
        "perplexity": held_out.perplexity,
        "bits_per_byte": held_out.bits_per_byte,
    }


def _save(run, state, params, best, held_out):
    """Write a checkpoint, and the best model where it is this one. Returns the least loss."""
    model = kinds.KINDS[run.model].model
    if best is None or held_out.loss < best:
        best = held_out.loss
        model_files.save(run.folder / "best", model, run.config, params)
        model_files.copy_tokeniser(run.folder, run.folder / "best")
    run_state.write(run.folder, state, best)
    model_files.save(run.folder, model, run.config, params)
    return best
