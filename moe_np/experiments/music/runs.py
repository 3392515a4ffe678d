"""The runs of the music: a decoder reads chorales note by note, four notes per eighth note.

Trained on the chorales whose families of melodies are not held out, in seven keys. A window begins
with the soprano of some eighth note, so that the voice follows from the place. The loss is in nats
per note of held-out chorales, every note predicted once, from at least half a window before it.
"""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np

from moe_np.data.music import chorales
from moe_np.data.music.chorales import Chorale
from moe_np.experiments.common import sequence_models, small_decoders
from moe_np.experiments.common.dense_and_mixture import MIXTURE, MODELS, taken_up
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.sequence_models import Sizes, Trained
from moe_np.experiments.common.statistics import describe
from moe_np.models import generation

SYSTEMS = MODELS
PAPER: dict[str, Any] = {}  # nothing was published of these held-out chorales
VOICES = len(chorales.VOICES)

Tokens = Annotated[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    sizes: Sizes = dataclasses.field(default_factory=lambda: Sizes(updates=2000, every=100))
    length: int = 128  # notes of a window: 32 eighth notes
    keys: tuple[int, ...] = (0, 1, -1, 2, -2, 3, -3)  # semitones, of the chorales for training
    chorales: int | None = None  # for training; None: all
    held_out: int = 12_000  # notes for choices, and as many for the test
    prompt: int = 32  # eighth notes of a test chorale that are given
    continuation: int = 96  # eighth notes that are drawn after them
    temperature: float = 0.9
    seeds: int = 5


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    values = dataclasses.asdict(config)
    del values["seeds"]
    return {"system": system, "seed": seed, **values, "keys": list(config.keys)}


def stream(pieces: Iterable[Chorale], keys: Iterable[int] = (0,)) -> Tokens:
    """Chorales one after the other as ids, each followed by a column of four END.

    keys   semitones; a chorale that leaves the range of pitches in a key is left out there
    """
    parts = []
    pieces = tuple(pieces)
    for semitones in keys:
        for piece in pieces:
            sounding = piece.grid[piece.grid != chorales.REST] + semitones
            if sounding.min() >= chorales.LOWEST and sounding.max() <= chorales.HIGHEST:
                grid = chorales.transposed(piece.grid, semitones)
                parts += [chorales.encode(grid), np.full(VOICES, chorales.END)]
    return np.concatenate(parts)


def run_one(spec: Spec) -> Result:
    """Train one system from one seed, measure the test chorales, and continue one of them."""
    split = chorales.split()
    sizes = Sizes(**spec["sizes"])
    length = spec["length"]
    train = stream(split.train[: spec["chorales"]], spec["keys"])
    validation, test = (stream(part)[: spec["held_out"]] for part in split[1:])
    context = max(length, VOICES * (spec["prompt"] + spec["continuation"]))
    config = sequence_models.config_of(
        sizes, spec["system"], vocabulary=chorales.SIZE, context=context
    )

    def minibatch_of(rng):
        columns = rng.integers(0, (len(train) - length - 1) // VOICES, sizes.batch)
        places = VOICES * columns[:, None] + np.arange(length)
        return train[places], train[places + 1]

    def validation_of(params):
        return small_decoders.loss_on(config, params, validation, length)

    model = sequence_models.trained(config, sizes, minibatch_of, validation_of, spec["seed"])
    result = {
        "system": spec["system"],
        "seed": spec["seed"],
        "loss": small_decoders.loss_on(config, model.params, test, length),
        "validation": model.validation,
        **sequence_models.counts(config),
    }
    if spec["system"] == MIXTURE:
        result["taken"] = _experts(model, test, length, spec["seed"])
    if spec["seed"] == 0:
        result["continuation"] = continued(model, split.test, spec)
    return result


def _experts(model: Trained, tokens: Tokens, length: int, seed: int) -> dict[str, list[float]]:
    """Per layer, how much the first expert tells of the note just read, and of the next one."""
    rng = np.random.default_rng([seed, 3])
    rows = tokens[: (len(tokens) - 1) // length * length].reshape(-1, length)
    following = tokens[1 : rows.size + 1].reshape(rows.shape)
    before = np.concatenate([np.full(VOICES, -1), tokens])[: rows.size].reshape(rows.shape)
    labels = {
        "voice": np.broadcast_to(np.arange(length) % VOICES, rows.shape),
        "pitch": rows,
        "held or new": (rows == before).astype(int),
        "the next pitch": following,
    }
    first = sequence_models.first_experts(model, rows)
    return {
        name: [taken_up(layer.ravel(), label.ravel(), rng) for layer in first]
        for name, label in labels.items()
    }


def continued(model: Trained, pieces: Iterable[Chorale], spec: Spec) -> Result:
    """The first test chorale that is long enough: its beginning, and what the decoder draws.

    A continuation ends with the first END. The grid holds both, in MIDI numbers.
    """
    piece = next(p for p in pieces if p.grid.shape[1] > spec["prompt"])
    ids = chorales.encode(piece.grid[:, : spec["prompt"]])
    drawn = generation.generate(
        model.params,
        ids[None],
        model.config,
        tokens=VOICES * spec["continuation"],
        rng=np.random.default_rng(0),
        temperature=spec["temperature"],
        stop=(chorales.END,),
    )
    new = [int(token.ids[0]) for token in drawn]
    grid = chorales.decode([*ids.tolist(), *new])
    return {"name": piece.name, "prompt": spec["prompt"], "grid": grid.tolist()}


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system."""
    summary = {name: runs[0][name] for name in ("parameters", "active")}
    summary["loss"] = describe([run["loss"] for run in runs]).record("mean", "sd")
    if "taken" in runs[0]:
        summary["taken"] = {
            name: np.mean([run["taken"][name] for run in runs], axis=0).tolist()
            for name in runs[0]["taken"]
        }
    return summary
