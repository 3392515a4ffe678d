"""`moe-np adapt`: upcycle, extend, split, prune, merge, distil and fine-tune a decoder in a folder.

    moe-np adapt upcycle FOLDER --out OUT --experts 8
    moe-np adapt add FOLDER --out OUT --experts 1         (behind closed gates, or with --open 0)
    moe-np adapt open FOLDER --out OUT --bias 0
    moe-np adapt split FOLDER --out OUT --parts 2
    moe-np adapt prune FOLDER --out OUT --keep 6 --by loss
    moe-np adapt merge FOLDER --out OUT --keep 4          (--keep 1: to a dense model)
    moe-np adapt distil FOLDER --out OUT --student copied --steps 500
    moe-np adapt finetune FOLDER --out OUT --text FILE --train norms attention

FOLDER is one of `moe-np train` or of Hugging Face. Distillation and fine-tuning go on where they
were interrupted when the same command is given.
"""

import argparse
import contextlib
import sys

import numpy as np

from moe_np.adapt import (
    adapted_run,
    adding,
    fine_tuning,
    layer_parts,
    merging,
    model_folder,
    removing,
    splitting,
    upcycling,
)
from moe_np.adapt.adapted_run import AdaptedRun, Distillation, FineTuning
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.language import cli as language_cli
from moe_np.language import corpus, run_folder, run_pictures

TOKENS = 4096  # of the text on which experts are looked at


def add_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np adapt`: one subcommand per change."""
    commands = parser.add_subparsers(dest="adapt", required=True, metavar="WHAT")
    upcycle = commands.add_parser("upcycle", help="a dense model becomes a mixture of experts")
    add = commands.add_parser("add", help="new experts, behind gates that are closed at first")
    opened = commands.add_parser("open", help="open the gates of new experts")
    split = commands.add_parser("split", help="every expert into finer ones, with equal outputs")
    prune = commands.add_parser("prune", help="remove experts")
    merge = commands.add_parser("merge", help="merge experts, also to a dense model")
    distil = commands.add_parser("distil", help="train a smaller model on a mixture's outputs")
    finetune = commands.add_parser("finetune", help="train on, all or some of the parameters")
    for command in (upcycle, add, opened, split, prune, merge, distil, finetune):
        folder = "of moe-np train, or of Hugging Face: a decoder"
        command.add_argument("folder", metavar="FOLDER", help=folder)
        command.add_argument("--out", required=True, metavar="FOLDER", help="of the new model")
        command.add_argument("--seed", type=int, default=0, metavar="S")
    text = "UTF-8 (default: the King James Bible)"
    for command in (prune, merge, distil, finetune):
        command.add_argument("--text", metavar="FILE", help=text)
    _add_upcycle(upcycle)
    _add_add(add)
    bias = "of the new experts in the router: below 0 few tokens choose them (default: 0)"
    opened.add_argument("--bias", type=float, default=0.0, metavar="B", help=bias)
    parts = "finer experts per expert, a divisor of its hidden units; a token has as many times k"
    split.add_argument("--parts", type=int, required=True, metavar="M", help=parts)
    for command in (prune, merge):
        tokens = f"of the text, on which experts are looked at (default: {TOKENS})"
        command.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=tokens)
        keep = "experts per layer"
        command.add_argument("--keep", type=int, required=True, metavar="N", help=keep)
    by = "use: the most weight; loss: the least change of the layer's output; random"
    prune.add_argument("--by", default="loss", metavar="WAY", help=by)
    merge.add_argument("--unaligned", action="store_true", help="leave hidden units in their order")
    _add_distil(distil)
    _add_finetune(finetune)
    for command in (distil, finetune):
        command.add_argument("--steps", type=int, default=500, metavar="N", help="updates")
        command.add_argument("--checkpoint-every", type=int, default=100, metavar="N")
        values = "a value of the data or the training, such as batch=8 or dropout=0.1"
        command.add_argument(
            "--set", action="append", default=[], dest="changes", metavar="NAME=VALUE", help=values
        )


def _add_upcycle(parser):
    parser.add_argument("--experts", type=int, required=True, metavar="E")
    parser.add_argument("--k", type=int, default=2, metavar="K", help="experts per token")
    switch = "the weight of a token's expert is its probability (k = 1): not equal to the old model"
    parser.add_argument("--switch", action="store_true", help=switch)
    layers = "the layers that get experts (default: all)"
    parser.add_argument("--layers", type=int, nargs="+", metavar="L", help=layers)
    noise = "on the copies, as a share of the standard deviation of each array"
    parser.add_argument("--noise", type=float, default=0.0, metavar="S", help=noise)
    redrawn = "share of the hidden units of each expert that are drawn anew (Drop-Upcycling)"
    parser.add_argument("--redrawn", type=float, default=0.0, metavar="SHARE", help=redrawn)


def _add_add(parser):
    experts = "new experts per layer (default: 1)"
    parser.add_argument("--experts", type=int, default=1, metavar="E", help=experts)
    source = "the expert of which they are copies (default: drawn anew)"
    parser.add_argument("--source", type=int, metavar="I", help=source)
    opened = "open their gates at this bias at once, such as 0; then the model is another one"
    parser.add_argument("--open", type=float, metavar="B", help=opened)


def _add_distil(parser):
    student = "new, copied, merged, task, fewer, or the folder of a model with the same tokeniser"
    parser.add_argument("--student", default="copied", metavar="WAY", help=student)
    soft = "share of the soft targets (default: 0.25; 0: no distillation)"
    parser.add_argument("--soft", type=float, default=0.25, metavar="S", help=soft)
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T")
    k = "experts per token of the student 'fewer'"
    parser.add_argument("--k", type=int, default=1, metavar="K", help=k)


def _add_finetune(parser):
    groups = f"the parameters that are trained: {', '.join(fine_tuning.GROUPS)} (default: all)"
    names = {"nargs": "+", "metavar": "GROUP", "help": groups}
    parser.add_argument("--train", default=list(fine_tuning.GROUPS), **names)
    rank = "train low-rank adapters of this rank on the experts, and nothing else"
    parser.add_argument("--rank", type=int, metavar="R", help=rank)
    parser.add_argument("--alpha", type=float, default=8.0, metavar="A", help="of the adapters")
    mask = "share of the tokens that are replaced by random ones"
    parser.add_argument("--mask", type=float, default=0.0, metavar="P", help=mask)
    examples = "train on the first N windows of the text"
    parser.add_argument("--examples", type=int, metavar="N", help=examples)
    patience = "end after N validations without a gain"
    parser.add_argument("--patience", type=int, metavar="N", help=patience)


def run(args: argparse.Namespace) -> int | None:
    """Run the command of the parsed arguments. Returns the exit status, None for 0."""
    checks.integer("--seed", args.seed, minimum=0)
    return COMMANDS[args.adapt](args)


# --- at once --------------------------------------------------------------------------------------


def _upcycle(args):
    source = model_folder.load(args.folder)
    model_folder.out_folder(source, args.out)
    router, options = "top_k", {"k": args.k, "renormalise": args.k > 1}
    if args.switch:
        router, options = "switch", {}
    config, params = upcycling.upcycle(
        source.config,
        source.params,
        experts=args.experts,
        rng=np.random.default_rng(args.seed),
        router=router,
        options=options,
        layers=args.layers,
        noise=args.noise,
        redrawn=args.redrawn,
    )
    _changed(args, source, config, params)
    if not upcycling.exact(config):
        print("the weights of a token do not add up to 1: the model is not the dense one at first")


def _add(args):
    source = model_folder.load(args.folder)
    model_folder.out_folder(source, args.out)
    config, params = adding.add(
        source.config,
        source.params,
        rng=np.random.default_rng(args.seed),
        experts=args.experts,
        source=args.source,
    )
    if args.open is not None:
        config, params = adding.open_gates(config, params, bias=args.open)
    _changed(args, source, config, params)
    if args.open is None:
        print(f"the new gates are closed; moe-np adapt open {args.out} --out FOLDER opens them")


def _open(args):
    source = model_folder.load(args.folder)
    model_folder.out_folder(source, args.out)
    layers = layer_parts.check_sparse(source.config, source.params)
    closed = sum(int(adding.is_closed(source.params["layers"][i]).sum()) for i in layers)
    if not closed:
        raise InputError(f"{args.folder}: wanted a model with closed gates, got none")
    _changed(args, source, *adding.open_gates(source.config, source.params, bias=args.bias))
    print(f"opened {closed} gates in {len(layers)} layers")


def _split(args):
    source = model_folder.load(args.folder)
    model_folder.out_folder(source, args.out)
    _changed(args, source, *splitting.split(source.config, source.params, parts=args.parts))


def _changed(args, source, config, params):
    """Write a model that a change of its experts made, and say how far its logits moved."""
    change = model_folder.change_of_logits(source, config, params)
    _written(args, source, config, params)
    print(f"largest change of a logit on random tokens: {change:.3g}")


def _prune(args):
    source, ids, targets = _looked_at(args)
    rng = np.random.default_rng(args.seed)
    options = {"keep": args.keep, "by": args.by}
    facts = (source.config, source.params)
    kept = removing.chosen_sets(*facts, **options, ids=ids, rng=rng)
    config, params = removing.remove(*facts, kept)
    _written(args, source, config, params)
    layers = layer_parts.sparse_layers(config)
    for number, numbers in zip(layers, kept, strict=True):
        print(f"layer {number}: kept experts {', '.join(map(str, numbers))}")
    _losses(source, config, params, ids, targets)


def _merge(args):
    source, ids, targets = _looked_at(args)
    facts = (source.config, source.params)
    align = not args.unaligned
    if args.keep == 1:
        seen = layer_parts.on_text(*facts, ids)
        use = [layer_parts.use(of_layer) for of_layer in seen]
        config, params = merging.to_dense(*facts, use, align=align)
    else:
        groups, use = merging.groups_by_use(*facts, ids, keep=args.keep)
        config, params = merging.merge_groups(*facts, groups, use, align=align)
    _written(args, source, config, params)
    _losses(source, config, params, ids, targets)


def _looked_at(args):
    """The model, and the text on which its experts are looked at."""
    source = model_folder.load(args.folder)
    model_folder.out_folder(source, args.out)
    text = corpus.shipped().train if args.text is None else corpus.read(args.text)
    return (source, *model_folder.windows_of(source, text, tokens=args.tokens))


def _written(args, source, config, params):
    family = model_folder.save(source, args.out, config, params)
    kind = f"{config.experts} experts, k = {layer_parts.choices(config)}"
    print(f"wrote {args.out}: {kind if config.experts > 1 else 'dense'}, model_type {family}")


def _losses(source, config, params, ids, targets):
    before = fine_tuning.held_out_loss(source.config, source.params, ids, targets)
    after = fine_tuning.held_out_loss(config, params, ids, targets)
    print(f"loss on the same {ids.size} tokens: {before:.4f} -> {after:.4f} nats per token")


# --- by training ----------------------------------------------------------------------------------


def _distil(args):
    plan = Distillation(args.student, args.soft, args.temperature, args.k)
    return _train(args, adapted_run.open_distillation, plan)


def _finetune(args):
    groups = tuple(args.train)
    remedies = (args.rank, args.alpha, args.mask, args.examples, args.patience)
    return _train(args, adapted_run.open_fine_tuning, FineTuning(groups, *remedies))


def _train(args, open_run, plan) -> int:
    source = model_folder.load(args.folder)
    adapted: AdaptedRun = open_run(
        args.out,
        source,
        corpus.shipped() if args.text is None else corpus.of_file(args.text),
        plan,
        updates=args.steps,
        changes={"seed": args.seed, **dict(language_cli.change(text) for text in args.changes)},
        checkpoint_every=args.checkpoint_every,
    )
    run = adapted.run
    before = run_folder.validate(run._replace(config=source.config), source.params)
    print(f"before: {language_cli.describe(before)}", file=sys.stderr)
    with (
        language_cli.end_requested() as ended,
        contextlib.closing(adapted_run.train(adapted)) as records,
    ):
        language_cli.follow(records, run, ended)
    run_pictures.write(run.folder)
    if ended:
        print(f"ended by {ended[0]}; the same command goes on", file=sys.stderr)
        return 130
    losses = adapted_run.stored_losses(run)
    best = f"the least, {min(losses):.4f}, is that of {run.folder / 'best'}"
    print(f"held-out loss {before.loss:.4f} -> {losses[-1]:.4f} nats per token; {best}")
    return 0


COMMANDS = {
    "upcycle": _upcycle,
    "add": _add,
    "open": _open,
    "split": _split,
    "prune": _prune,
    "merge": _merge,
    "distil": _distil,
    "finetune": _finetune,
}
