"""Distillation and fine-tuning in a folder, which go on after an interruption with the same bits.

The folder is that of `moe_np.language.run_folder`: run.json says what determines the run, here also
a hash of the models that it begins with; state.safetensors, the newest checkpoint, has what is
trained, which may be low-rank adapters; model.safetensors is the whole model, and best/ the one of
the least validation loss. Early stopping looks at the stored validation losses, so that a run which
it has ended stays ended.
"""

import json
import pathlib
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np

from moe_np.adapt import distillation, fine_tuning, low_rank, model_folder
from moe_np.adapt.model_folder import Source
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.data.text.windows import random_windows
from moe_np.language import model_files, run_folder, run_pictures, run_request, run_state
from moe_np.language.corpus import Corpus
from moe_np.language.evaluation import Evaluation
from moe_np.language.run_folder import Parts, Progress, Run
from moe_np.layers import balance
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree
from moe_np.training import loop

KIND = "mixtral"  # any kind of `moe_np.language.kinds` that is a decoder
FIXED = ("tokeniser", "vocabulary")  # settings that the model has decided
OF_CONFIG = ("dropout", "expert_dropout", "options")  # what --set can change in its config
LOOKED_AT = 4096  # tokens of the text by which a student's experts are chosen or weighted
DEFAULTS = {"learning_rate": 1e-3, "weight_decay": 0.0}


class AdaptedRun(NamedTuple):
    """A run with what it trains."""

    run: Run
    parts: Parts
    patience: int | None  # validations without a gain until it ends


class Distillation(NamedTuple):
    """How a student is made and trained; its fields are in run.json."""

    student: str = "copied"  # a way of `distillation.WAYS`, "fewer", or a folder
    soft: float = 0.25
    temperature: float = 1.0
    k: int = 1  # experts per token of the student "fewer"


class FineTuning(NamedTuple):
    """What is trained, and the remedies against overfitting; its fields are in run.json."""

    groups: tuple[str, ...] = fine_tuning.GROUPS
    rank: int | None = None  # of adapters on experts, which are trained in place of the groups
    alpha: float = 8.0
    mask: float = 0.0  # share of the tokens that are replaced by random ones
    examples: int | None = None  # windows at the beginning of the text; None: all of it
    patience: int | None = None


# --- opening --------------------------------------------------------------------------------------


def open_distillation(
    folder: str | pathlib.Path,
    source: Source,
    corpus: Corpus,
    plan: Distillation,
    *,
    updates: int,
    changes: dict[str, Any] | None = None,
    checkpoint_every: int = 100,
) -> AdaptedRun:
    """A new distillation of the model `source` in this folder, or the one that is stored there.

    changes   {name: value} as of `moe-np train --set`, without what the model has decided

    Raises InputError for a folder with another run, for a student with another vocabulary, and for
    values that do not fit.
    """
    checks.number("soft", plan.soft, minimum=0, maximum=1)
    checks.number("temperature", plan.temperature, greater_than=0)
    changes = {**DEFAULTS, **(changes or {})}
    seed = checks.integer("seed", changes.get("seed", 0), minimum=0)
    config, params = _student(source, corpus, plan, np.random.default_rng([seed, 0]))
    models = [(source.config, source.params), (config, params)]
    prepared = _prepared(folder, source, corpus, plan, models, changes)
    run = prepared.run
    workspace = {}
    losses = _balance(run)
    options = {"soft": plan.soft, "temperature": plan.temperature, "workspace": workspace}

    def gradients_of(trained, minibatch, rng):
        ids, targets = minibatch
        return distillation.loss_and_grads(
            trained,
            ids,
            targets,
            run.config,
            teacher=(source.config, source.params),
            losses=losses,
            rng=rng,
            **options,
        )

    parts = Parts(lambda: loop.initial_state(params), gradients_of, _windows(run), _unchanged)
    run = _begun(prepared, source, updates, checkpoint_every)
    return AdaptedRun(run, parts, None)


def _student(source: Source, corpus: Corpus, plan: Distillation, rng) -> tuple[Config, Tree]:
    if plan.student == "fewer":
        return distillation.fewer_choices(source.config, plan.k), source.params
    if plan.student in distillation.WAYS:
        ids, _ = model_folder.windows_of(source, corpus.train, tokens=LOOKED_AT)
        facts = {"rng": rng, "ids": ids}
        return distillation.student(plan.student, source.config, source.params, **facts)
    if not (pathlib.Path(plan.student) / "config.json").exists():
        ways = ", ".join((*distillation.WAYS, "fewer"))
        raise InputError(f"--student: wanted {ways} or a folder with a model; got {plan.student}")
    student = model_folder.load(plan.student)
    distillation.check_vocabularies(source.config, student.config)
    for name in ("tokeniser.json", "tokenizer.json"):
        texts = [_bytes_of(folder / name) for folder in (source.folder, student.folder)]
        if texts[0] != texts[1]:
            raise InputError(f"student: wanted the tokeniser of the teacher, {name} differs")
    return student.config, student.params


def _bytes_of(path):
    return path.read_bytes() if path.exists() else None


def open_fine_tuning(
    folder: str | pathlib.Path,
    source: Source,
    corpus: Corpus,
    plan: FineTuning,
    *,
    updates: int,
    changes: dict[str, Any] | None = None,
    checkpoint_every: int = 100,
) -> AdaptedRun:
    """A new fine-tuning of the model `source` in this folder, or the one that is stored there.

    The arguments and the errors are those of `open_distillation`; further ones for groups that the
    model does not have, for adapters together with groups, and for a set without an example.
    """
    checks.number("mask", plan.mask, minimum=0, maximum=1)
    fine_tuning.stops((), plan.patience)
    if plan.rank is not None and tuple(plan.groups) != fine_tuning.GROUPS:
        raise InputError("rank: wanted no groups beside adapters, which are all that is trained")
    trained = fine_tuning.trained_leaves(source.config, source.params, plan.groups)
    changes = {**DEFAULTS, **(changes or {})}
    models = [(source.config, source.params)]
    prepared = _prepared(folder, source, corpus, plan, models, changes)
    run = prepared.run
    minibatch_of = _masked(run, _windows(run, plan.examples), plan.mask)
    options = {"losses": _balance(run), "workspace": {}}
    if plan.rank is not None:
        parts = _with_adapters(run, source.params, plan, minibatch_of, options)
        run = _begun(prepared, source, updates, checkpoint_every)
        return AdaptedRun(run, parts, plan.patience)

    def gradients_of(params, minibatch, rng):
        ids, targets = minibatch
        losses, grads = decoder.loss_and_grads(params, ids, targets, run.config, rng=rng, **options)
        return losses, fine_tuning.frozen(grads, trained)

    def initial():
        return loop.initial_state(source.params)

    parts = Parts(initial, gradients_of, minibatch_of, _unchanged, fine_tuning.decays(trained))
    run = _begun(prepared, source, updates, checkpoint_every)
    return AdaptedRun(run, parts, plan.patience)


def _with_adapters(run, params, plan, minibatch_of, options):
    alpha = checks.number("alpha", plan.alpha)
    rng = np.random.default_rng([run.options.seed, 0])
    adapters = low_rank.init(rng, run.config, params, rank=plan.rank)

    def gradients_of(trained, minibatch, rng):
        ids, targets = minibatch
        facts = {"alpha": alpha, "rng": rng, **options}
        return low_rank.loss_and_grads(trained, params, ids, targets, run.config, **facts)

    def params_of(trained):
        return low_rank.merged(params, trained, alpha=alpha)

    return Parts(lambda: loop.initial_state(adapters), gradients_of, minibatch_of, params_of)


def _unchanged(params):
    return params


class _Prepared(NamedTuple):
    run: Run
    request: dict[str, Any]  # what determines the run


def _prepared(folder, source, corpus, plan, models, changes) -> _Prepared:
    """The run and its request, checked and not yet written."""
    folder = model_folder.out_folder(source, folder)
    config = models[-1][0]
    for name in FIXED:
        if name in changes:
            raise InputError(f"--set: wanted no {name}, which the model has already")
    changes = {"length": min(128, config.context), **changes}
    settings, options, of_config = run_folder.sorted_changes(KIND, changes)
    for name in of_config:
        checks.choice("--set", name, OF_CONFIG)
    if settings.length > config.context:
        raise InputError(f"--set length: wanted at most {config.context}, got {settings.length}")
    request = {
        "adapted": type(plan).__name__,
        **plan._asdict(),
        "models": [model_folder.digest(*model) for model in models],
        "text": corpus.name,
        "digest": corpus.digest(),
        "settings": settings._asdict(),
        "options": {**options._asdict(), "updates": None},
        "config": of_config,
    }
    tokeniser = model_files.tokeniser(source.folder)
    train = tokeniser.encode(corpus.train)
    validation = tokeniser.encode(corpus.validation)[: settings.validation_tokens]
    if len(train) <= settings.length or len(validation) < 2:
        raise InputError(
            f"--text: wanted more than {settings.length} tokens for training and some to hold out, "
            f"got {len(train)} and {len(validation)}"
        )
    config = config._replace(**of_config)
    run = Run(folder, KIND, config, options, settings, 1, tokeniser, train, validation)
    return _Prepared(run, request)


def _begun(prepared, source, updates, checkpoint_every) -> Run:
    """The run, with its run.json and tokeniser in the folder."""
    run, request = prepared
    request |= {
        "checkpoint_every": checks.integer("--checkpoint-every", checkpoint_every, minimum=1),
        "updates": checks.integer("--steps", updates, minimum=1),
    }
    request = json.loads(json.dumps(request))  # as it is read again: lists for tuples
    stored = run_request.stored_request(run.folder)
    if stored is None:
        model_files.copy_tokeniser(source.folder, run.folder)
        run_request.store_request(run.folder, request)
    else:
        run_request.refuse_another(run.folder, request, stored)
    options = loop.check(run.options._replace(updates=updates))
    return run._replace(options=options, checkpoint_every=checkpoint_every)


def _balance(run):
    coefficient = run.settings.balance
    if coefficient is None:
        return decoder.SWITCH_LOSS
    return ((coefficient, balance.switch),) if coefficient else ()


def _windows(run, examples=None):
    """`minibatch_of`: random windows of the text, or of its first `examples` windows."""
    batch, length = run.settings.batch, run.settings.length
    if examples is None:
        return lambda rng: random_windows(run.train, rng, batch=batch, length=length)
    rows = min(checks.integer("examples", examples, minimum=0), (len(run.train) - 1) // length)
    ids = run.train[: rows * length].reshape(rows, length)
    targets = run.train[1 : rows * length + 1].reshape(rows, length)
    return fine_tuning.minibatches(ids, targets, batch=batch)


def _masked(run, minibatch_of, p):
    if not p:
        return minibatch_of

    def masked_minibatch_of(rng):
        ids, targets = minibatch_of(rng)
        return fine_tuning.masked(ids, p, rng, vocabulary=run.config.vocabulary), targets

    return masked_minibatch_of


# --- training -------------------------------------------------------------------------------------


def train(adapted: AdaptedRun) -> Generator[Progress | Evaluation, None, None]:
    """Go on with a run until its last update, or until early stopping ends it; as
    `run_folder.train`.
    """
    run = adapted.run
    losses = stored_losses(run)
    if fine_tuning.stops(losses, adapted.patience):
        return
    for record in run_folder.train(run, adapted.parts):
        yield record
        if isinstance(record, Evaluation):
            losses.append(record.loss)
            if fine_tuning.stops(losses, adapted.patience):
                return


def stored_losses(run: Run) -> list[float]:
    """The validation losses up to the newest checkpoint."""
    if not (run.folder / run_state.METRICS).exists():
        return []
    run_state.cut_metrics(run.folder, run_state.updates(run.folder))
    _, validations = run_pictures.records(run.folder)
    return [record["validation_loss"] for record in validations]
