"""What the routers of a model do with a text, at the end of training and at its checkpoints.

A model is trained in a folder of `moe_np.experiments.common.pretrained`, under a key of its own.
Beside it, "choices/STEP.safetensors" has the experts of every token of the held-out texts at each
checkpoint: an array (layers, N, k) per domain. It goes on after an interruption, and a checkpoint
whose choices were not yet written has them written first.
"""

import os
import pathlib
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.params import nest
from moe_np.data.text.windows import UNCOUNTED, covering_windows
from moe_np.experiments.common import pretrained, sources
from moe_np.experiments.common.experiment import Spec
from moe_np.experiments.specialisation import domains
from moe_np.language import run_folder, run_state
from moe_np.language.evaluation import Evaluation
from moe_np.language.run_folder import Run
from moe_np.layers import specialisation
from moe_np.models import decoder, safetensors

Choice = Annotated[np.ndarray, "layers, N, k"]  # experts, the best first
CHARACTERS_PER_TOKEN = 6  # more than a token has on average: so many are cut out to be measured


class Routings(NamedTuple):
    """What a model does with a text: the tokens in their order, each with what follows it."""

    ids: Annotated[np.ndarray, "N"]
    following: Annotated[np.ndarray, "N"]  # the true next token
    predicted: Annotated[np.ndarray, "N"]  # the next token that the model finds most probable
    choice: Choice
    weight: Annotated[np.ndarray, "layers, N, k"]


class Trained(NamedTuple):
    """A model after its last update, and the choices of its routers at all checkpoints."""

    run: Run
    params: Any
    texts: dict[str, np.ndarray]  # the tokens of the held-out text of each domain
    choices: dict[int, dict[str, Choice]]  # of each checkpoint and domain


def routings_of(params: Any, config: Any, tokens: np.ndarray, *, length: int) -> Routings:
    """The routings of a text of n tokens, n − 1 of them, each seen with at least half a window
    before it, or with all that there is.
    """
    columns = []
    for ids, targets in covering_windows(tokens, batch=8, length=length):
        counted = (targets != UNCOUNTED).ravel()
        logits, cache = decoder.forward(params, ids, config)
        chosen = [specialisation.choices(block.mixture.routing) for block in cache.blocks]
        predicted = logits.reshape(-1, logits.shape[-1]).argmax(axis=1)
        columns.append(
            (
                ids.ravel()[counted],
                targets.ravel()[counted],
                predicted[counted],
                np.stack([layer.expert[counted] for layer in chosen]),
                np.stack([layer.weight[counted] for layer in chosen]),
            )
        )
    arrays = list(zip(*columns, strict=True))
    tokenwise = [np.concatenate(parts) for parts in arrays[:3]]
    return Routings(*tokenwise, *(np.concatenate(parts, axis=1) for parts in arrays[3:]))


def trained(spec: Spec) -> Trained:
    """The model of a spec: trained now, gone on with, or found finished.

    spec   of `pretrained.spec_of`, with "domains", "characters" per domain (None: all) and
           "measured", the number of held-out tokens of all domains together
    """
    measured = spec["measured"] // len(spec["domains"])
    held_out = CHARACTERS_PER_TOKEN * measured
    source = sources.fingerprint("moe_np.experiments.specialisation.snapshots")
    run = run_folder.open_run(
        pathlib.Path(os.environ[pretrained.FOLDER]) / pretrained.key({**spec, "source": source}),
        domains.corpus(spec["domains"], spec["characters"], held_out, spec["books"]),
        model=spec["model"],
        updates=spec["updates"],
        changes=spec["changes"],
        checkpoint_every=spec["checkpoint_every"],
    )
    texts = {
        name: run.tokeniser.encode(domains.held_out_text(name, held_out))[: measured + 1]
        for name in spec["domains"]
    }
    _write_choices(run, texts)
    if not pretrained.finished(run):
        for record in run_folder.train(run):
            if isinstance(record, Evaluation):
                _write_choices(run, texts)
    return Trained(run, stored_params(run), texts, _read_choices(run))


def stored_params(run: Run) -> Any:
    """The parameters after the last update that is stored."""
    reader = safetensors.Reader(run.folder / run_state.STATE)
    prefix = "params."
    names = [name for name in reader if name.startswith(prefix)]
    return nest({name.removeprefix(prefix): reader.read(name) for name in names})


def _write_choices(run, texts):
    """Write the choices of the state that is stored, where it is a checkpoint that has none yet."""
    number = run_state.updates(run.folder)
    path = run.folder / "choices" / f"{number}.safetensors"
    is_checkpoint = number % run.checkpoint_every == 0 or number == run.options.updates
    if number == 0 or not is_checkpoint or path.exists():
        return
    params = stored_params(run)
    length = run.settings.length
    arrays = {
        name: routings_of(params, run.config, tokens, length=length).choice.astype(np.uint8)
        for name, tokens in texts.items()
    }
    path.parent.mkdir(exist_ok=True)
    safetensors.write(path, arrays)


def _read_choices(run):
    readers = {
        int(path.stem): safetensors.Reader(path)
        for path in (run.folder / "choices").glob("*.safetensors")
    }
    return {
        number: {name: reader.read(name) for name in reader}
        for number, reader in sorted(readers.items())
    }
