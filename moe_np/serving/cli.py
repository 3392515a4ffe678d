"""`moe-np generate FOLDER --memory 64MB`: a text continued with experts that stay on disk.

Without `--memory` it is the command of `moe_np.language.cli`. Hits, misses and the resident memory
of the whole process go to stderr.
"""

import argparse
import json
import pathlib
import sys

from moe_np.base.checks import InputError
from moe_np.language import cli, model_files
from moe_np.language.model_files import Model
from moe_np.models import checkpoints, decoder, encoder_decoder
from moe_np.serving import memory, offload
from moe_np.serving.cache_policies import POLICIES


def add_generate(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np generate`."""
    cli.add_generate(parser, argv)
    budget = "keep at most SIZE of the experts' weights in memory, such as 64MB; the others on disk"
    parser.add_argument("--memory", metavar="SIZE", help=budget)
    rule = "which expert leaves the full memory: the least recently or least frequently used one"
    parser.add_argument("--policy", choices=tuple(POLICIES), default="lru", help=rule)


def generate(args: argparse.Namespace) -> None:
    """Continue a text, token by token."""
    if args.memory is None:
        cli.generate(args)
        return
    model, caches = load(args.folder, memory.bytes_of("--memory", args.memory), args.policy)
    cli.generate(args, model)
    print(describe(offload.totals(caches)), file=sys.stderr)


def load(folder: str, size: int, policy: str) -> tuple[Model, list[offload.CachedExperts]]:
    """A model with at most `size` bytes of routed experts in memory, and the caches.

    Raises InputError as `checkpoints.load` and `offload.attach` do.
    """
    path = pathlib.Path(folder) / checkpoints.CONFIG
    try:
        is_ours = json.loads(path.read_text(encoding="utf-8"))["model_type"] == model_files.OURS
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False  # checkpoints.load tells what is amiss
    if is_ours:
        raise InputError("--memory: wanted a decoder or an encoder-decoder, got an LSTM")
    config, params = checkpoints.load(folder, lazy=True)
    params, caches = offload.attach(params, size, policy=policy)
    module = decoder if isinstance(config, decoder.Config) else encoder_decoder
    return Model(module, config, params), caches


def describe(totals: offload.Totals) -> str:
    """Hits, misses and memory as a line."""
    counts = totals.counts
    resident = memory.resident()
    line = (
        f"experts: {counts.hits} hits, {counts.misses} misses ({counts.hit_rate:.0%} hits); "
        f"{totals.places} of {totals.experts} in {memory.megabytes(totals.nbytes)}"
    )
    return line if resident is None else f"{line}; resident in all {memory.megabytes(resident)}"
