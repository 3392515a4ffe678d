"""Trained language models, stored under a key of all that determines them, and shared.

    with pretrained.stored_with(sweep):
        results = sweep.map(run_one, specs)

    def run_one(spec):
        run = pretrained.trained(spec["model"])      # trained now, gone on with, or found finished
        model = model_files.load(run.folder)

A training run lies in a folder of `moe_np.language.run_folder`: it goes on after an interruption,
and an experiment that wants the same model finds it.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.data.text import bible
from moe_np.experiments.common import sources
from moe_np.experiments.common.experiment import Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.language import run_folder, run_pictures, run_state
from moe_np.language.corpus import Corpus
from moe_np.language.run_folder import Run

FOLDER = "MOE_NP_MODELS"  # an environment variable, which worker processes inherit


def spec_of(
    model: str,
    *,
    updates: int,
    seed: int,
    checkpoint_every: int,
    books: tuple[str, ...] = (),
    **changes: Any,
) -> Spec:
    """What determines a trained model.

    model      a name of `moe_np.language.kinds`
    books      of the Bible to train on; () for all that are not held out
    changes    values of the model, the data or the training, as `moe-np train --set`
    """
    return {
        "model": model,
        "updates": updates,
        "checkpoint_every": checkpoint_every,
        "books": list(books),
        "changes": {**changes, "seed": seed},
    }


@contextlib.contextmanager
def stored_with(sweep: Sweep) -> Iterator[None]:
    """Store models beside the runs of a sweep, in this process and its workers. A sweep that stores
    nothing has a folder that is removed at the end.
    """
    before = os.environ.get(FOLDER)
    with contextlib.ExitStack() as stack:
        if sweep.store is None:
            store = stack.enter_context(tempfile.TemporaryDirectory())
        else:
            store = str(sweep.store.resolve() / "models")
        os.environ[FOLDER] = store
        try:
            yield
        finally:
            if before is None:
                del os.environ[FOLDER]
            else:
                os.environ[FOLDER] = before


def key(spec: Spec) -> str:
    """The folder's name: it changes with the spec, the kernels, and the source that trains."""
    source = sources.fingerprint("moe_np.language.run_folder", "moe_np.language.kinds")
    text = json.dumps([spec, kernels.backend(), source], sort_keys=True)
    return f"{spec['model']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def corpus_of(spec: Spec) -> Corpus:
    """The text of a spec: the King James Bible, or some of its books, and the held-out books."""
    split = bible.split()
    books = spec["books"]
    held_out = set(bible.VALIDATION) | set(bible.TEST)
    if held_out & set(books):
        raise InputError(f"books: wanted none that is held out, got {held_out & set(books)}")
    train = bible.of_books(books) if books else split.train
    return Corpus("books", bible.running_text(train), bible.running_text(split.validation))


def trained(spec: Spec) -> Run:
    """The run of a spec, after its last update. It is trained, or gone on with, if need be."""
    folder = pathlib.Path(os.environ[FOLDER]) / key(spec)
    run = run_folder.open_run(
        folder,
        corpus_of(spec),
        model=spec["model"],
        updates=spec["updates"],
        changes=spec["changes"],
        checkpoint_every=spec["checkpoint_every"],
    )
    if not finished(run):
        for _ in run_folder.train(run):
            pass
    return run


def finished(run: Run) -> bool:
    """Whether the last update of a run is stored."""
    return run_state.updates(run.folder) == run.options.updates


def metrics(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of a run: of its updates, and of its validations."""
    return run_pictures.records(run.folder)
