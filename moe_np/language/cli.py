"""`moe-np train`, `moe-np generate` and `moe-np evaluate`: language models in a folder.

Text and results go to stdout, everything else to stderr. Ctrl-C, and a request of the system to
end, let the update end and write a checkpoint; the same command goes on.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from moe_np.base import checks, files
from moe_np.base.checks import InputError
from moe_np.data.text import entrance
from moe_np.language import (
    colours,
    continuation,
    corpus,
    evaluation,
    kinds,
    model_files,
    objectives,
    run_folder,
    run_pictures,
    run_state,
    tensorboard,
)
from moe_np.language.evaluation import Evaluation
from moe_np.layers import diagnostics
from moe_np.training import loop

DEFAULT_TOKENS = 100
MODEL_FOLDER = "of moe-np train, or of Hugging Face; `shipped` for the model of the package"
LONGEST_WINDOW = 512  # tokens, in `evaluate`; a model that was trained on fewer has fewer


def add_train(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np train`."""
    parser.add_argument("folder", metavar="FOLDER", help="of the run; it goes on if it has begun")
    models = "; ".join(f"{name}: {kind.help}" for name, kind in kinds.KINDS.items())
    parser.add_argument("--model", default="mixtral", metavar="NAME", help=models)
    text = "UTF-8; its last tenth is held out (default: the King James Bible, books held out)"
    parser.add_argument("--text", metavar="FILE", help=text)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="updates (default: 500)")
    length.add_argument("--minutes", type=float, metavar="M", help="as many updates as fit")
    parser.add_argument("--checkpoint-every", type=int, default=100, metavar="N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="NAME=VALUE",
        help="a value of the model, the data or the training, such as experts=16 or batch=8: "
        + values_of_set(),
    )


def values_of_set() -> str:
    """The names that `--set` takes, with the values that they have without it."""
    options = loop.Options(updates=1)._asdict()
    del options["updates"]  # --steps
    common = {**run_folder.Settings()._asdict(), **options}
    texts = [f"{name}={'' if value is None else value}" for name, value in common.items()]
    fields = ", ".join(kinds.KINDS["mixtral"].model.Config._fields)
    return f"{', '.join(texts)}; of the model, if it is a decoder: {fields}"


def train(args: argparse.Namespace) -> int:
    """Train a language model in a folder, or go on with it."""
    steps = 500 if args.steps is None and args.minutes is None else args.steps
    run = run_folder.open_run(
        args.folder,
        corpus.shipped() if args.text is None else corpus.of_file(args.text),
        model=args.model,
        updates=steps,
        minutes=args.minutes,
        changes=dict(change(text) for text in args.changes),
        checkpoint_every=args.checkpoint_every,
    )
    finished = run_state.updates(run.folder) == run.options.updates
    records = tensorboard.recorded(run_folder.train(run), run.folder)
    with end_requested() as ended, contextlib.closing(records):
        follow(records, run, ended)
    run_pictures.write(run.folder)
    if ended:
        print(f"ended by {ended[0]}; the same command goes on", file=sys.stderr)
    elif finished:
        updates = run.options.updates
        print(f"{run.folder} has had all of its {updates} updates", file=sys.stderr)
    return 130 if ended else 0


def follow(
    records: Iterator[run_folder.Progress | Evaluation], run: run_folder.Run, ended: list[str]
) -> None:
    """Show the records on a progress bar until the last one, or until a signal has come."""
    with tqdm(total=run.options.updates, unit="update", file=sys.stderr) as bar:
        for record in records:
            if isinstance(record, Evaluation):
                bar.write(f"update {bar.n}: {describe(record)}", file=sys.stderr)
                continue
            bar.update(record.step - bar.n)
            bar.set_postfix_str(_state_of(record), refresh=False)
            if ended:
                return


def _state_of(record):
    """Loss, speed, the balance of the experts' load and the dropped share, for the bar."""
    parts = [f"loss {record.loss:.3f}", f"{record.tokens / record.seconds:,.0f} tokens/s"]
    if record.load:
        uneven = max(diagnostics.max_over_mean(np.array(load)) for load in record.load)
        parts.append(f"busiest expert {uneven:.2f} x mean")
        parts.append(f"dropped {100 * max(record.dropped):.1f} %")
    return ", ".join(parts)


def change(text: str) -> tuple[str, Any]:
    """NAME=VALUE -> (name, value): JSON where it is, such as 3, 1e-3, true or [0, 2], else text."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise InputError(f"--set: wanted NAME=VALUE, got {text!r}")
    with contextlib.suppress(ValueError):
        return name, json.loads(value)
    return name, value


@contextlib.contextmanager
def end_requested() -> Iterator[list[str]]:
    """A list that gets the name of SIGINT or SIGTERM when it comes. A second one has its usual
    effect.
    """
    received: list[str] = []
    before = {}

    def note(number, frame):
        received.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(measured: Evaluation) -> str:
    """An evaluation as a line."""
    return (
        f"perplexity {measured.perplexity:.2f}, {measured.bits_per_byte:.3f} bits per byte "
        f"({measured.loss:.4f} nats per token, {measured.tokens} tokens)"
    )


def add_evaluate(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np evaluate`."""
    parser.add_argument("folder", metavar="FOLDER", help=MODEL_FOLDER)
    text = "UTF-8 (default: the held-out books of the King James Bible)"
    parser.add_argument("--text", metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def evaluate(args: argparse.Namespace) -> None:
    """Print perplexity and bits per byte of a model on a text."""
    model = model_files.load(args.folder)
    tokeniser = model_files.tokeniser(args.folder)
    text = corpus.shipped().validation if args.text is None else corpus.read(args.text)
    tokens = tokeniser.encode(text)
    if len(tokens) < 2:
        raise InputError(f"--text: wanted a text of at least two tokens, got {len(tokens)}")
    length = min(getattr(model.config, "context", LONGEST_WINDOW), LONGEST_WINDOW)
    measured = evaluation.evaluate(
        lambda ids, targets: objectives.logits_and_targets(
            model.module, model.params, ids, targets, model.config
        ),
        tokens,
        tokeniser,
        length=length,
        first_whole=objectives.predicts_all(model.module),
    )
    if args.json:
        facts = {**measured._asdict(), "loss": measured.loss, "perplexity": measured.perplexity}
        print(json.dumps({**facts, "bits_per_byte": measured.bits_per_byte, "window": length}))
    else:
        print(f"{describe(measured)}, windows of {length} tokens")


def add_generate(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np generate`."""
    parser.add_argument("folder", metavar="FOLDER", help=MODEL_FOLDER)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the text to continue")
    parser.add_argument("--tokens", type=int, metavar="N", help="at most (default: 100, or as fit)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0: arg-max")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K most probable")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the share P")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    experts = "colour each token by its first expert, here and in FOLDER/generation.html"
    parser.add_argument("--experts", action="store_true", help=experts)
    layer = "the layer whose experts colour the text (default: the one in the middle)"
    parser.add_argument("--layer", type=int, metavar="L", help=layer)
    parser.add_argument("--html", metavar="FILE", help="the page, in place of the one in FOLDER")


def generate(args: argparse.Namespace, model: model_files.Model | None = None) -> None:
    """Continue a text, token by token. model: that of the folder, if it has been read already."""
    if model is None:
        model = model_files.load(args.folder)
    tokeniser = model_files.tokeniser(args.folder)
    for name in ("layer", "html"):
        if getattr(args, name) is not None and not args.experts:
            raise InputError(f"--{name}: wanted --experts with it, got none")
    entrance.text("--prompt", args.prompt)
    rng = np.random.default_rng(checks.integer("--seed", args.seed, minimum=0))
    ends = continuation.ends(args.folder)
    n_prompt = len(tokeniser.encode(args.prompt)) + (ends.first is not None)
    if args.prompt != args.prompt.rstrip():
        note = "the prompt ends in white space, which models see before a word, as a part of it"
        print(f"note: {note}", file=sys.stderr)
    tokens = args.tokens
    if tokens is None:
        left = getattr(model.config, "context", DEFAULT_TOKENS + n_prompt) - n_prompt
        tokens = min(DEFAULT_TOKENS, max(left, 0))
    pieces = continuation.continue_text(
        model,
        tokeniser,
        args.prompt,
        tokens=tokens,
        rng=rng,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        ends=ends,
    )
    if not args.experts:
        for piece in pieces:
            print(piece.text, end="", flush=True)
        print()
        return
    _with_experts(args, pieces, n_prompt)


def _with_experts(args, pieces, n_prompt):
    """Stream the text in colours, then write the page."""
    pieces = iter(pieces)
    first = next(pieces)
    layers = len(first.experts)
    layer = layers // 2
    if args.layer is not None:
        layer = checks.integer("--layer", args.layer, minimum=0, maximum=max(layers - 1, 0))
    shipped = model_files.path_of(args.folder) == model_files.SHIPPED_FOLDER
    beside = pathlib.Path() if shipped else pathlib.Path(args.folder)
    page = pathlib.Path(args.html or beside / "generation.html")
    try:
        files.writable_folder(page.parent)
    except InputError:
        got = f"{page.parent}; another place can be named with --html FILE"
        raise InputError(f"--experts: wanted a folder that can be written, got {got}") from None
    if page.is_dir():
        raise InputError(f"--html: wanted the name of a file, got the folder {page}")
    shown = []
    for piece in itertools.chain([first], pieces):
        coloured = "NO_COLOR" not in os.environ
        text = colours.in_terminal(piece, layer) if coloured else piece.text
        print(text, end="", flush=True)
        shown.append(piece)
    print()
    title = f"A text continued by {pathlib.Path(args.folder).resolve().name}"
    files.write_atomically(page, colours.as_page(shown, title, n_prompt, layer))
    print(f"wrote {page}", file=sys.stderr)
