"""The counts of a model, and their table."""

from dataclasses import fields
from typing import NamedTuple

from moe_np.accounting.architectures import LstmMoe, Part, Transformer
from moe_np.accounting.published import MODELS
from moe_np.base import checks
from moe_np.base.checks import InputError

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "int8": 1}
ADAM = 16  # bytes per parameter to train in float32: weight, gradient and two moments


class Counts(NamedTuple):
    """The counts of one model."""

    name: str
    total: int
    active: int
    operations: int  # multiply-adds per token, without attention over the context
    parts: dict[str, Part]
    memory: dict[str, int]  # bytes of all parameters by dtype; "adam": to train in float32
    published: dict[str, str]  # "total", "active", "operations", as printed
    note: str  # what does not match, or is not counted


def _check_sizes(model):
    """Check that every size is a whole number of at least 0, and every switch True or False."""
    for f in fields(model):
        value = getattr(model, f.name)
        kind = f.type if isinstance(f.type, str) else f.type.__name__
        if kind == "int":
            checks.integer(f"model.{f.name}", value, minimum=0)
        elif kind == "bool":
            checks.boolean(f"model.{f.name}", value)


def count(model: str | Transformer | LstmMoe) -> Counts:
    """Count a model of MODELS by its name, or any Transformer or LstmMoe.

    Raises InputError for an unknown name, and for anything else.
    """
    name = ""
    if isinstance(model, str):
        name = checks.choice("model", model, tuple(MODELS))
        model = MODELS[name]
    elif not isinstance(model, (Transformer, LstmMoe)):
        wanted = "a name of MODELS, a Transformer or an LstmMoe"
        raise InputError(f"model: wanted {wanted}, got {type(model).__name__}")
    _check_sizes(model)
    parts = {key: part for key, part in model.parts().items() if any(part)}
    total, active, operations = sum(parts.values(), Part())
    memory = {dtype: size * total for dtype, size in BYTES.items()} | {"adam": ADAM * total}
    return Counts(name, total, active, operations, parts, memory, dict(model.published), model.note)


def table(counts: Counts) -> str:
    """The counts as Markdown, as `moe-np count` prints them."""
    lines = [f"# {counts.name}", ""]
    lines += ["| part | parameters | active | operations per token |", "|---|--:|--:|--:|"]
    whole = Part(counts.total, counts.active, counts.operations)
    for name, part in {**counts.parts, "**all**": whole}.items():
        lines.append(f"| {name} | {part.total:,} | {part.active:,} | {part.operations:,} |")
    if counts.published:
        cells = (counts.published.get(key, "") for key in Part._fields)
        lines.append(f"| published | {' | '.join(cells)} |")
    lines += ["", "Operations are multiply-adds, without attention over the context."]
    gigabytes = {dtype: f"{size / 1e9:,.3f} GB" for dtype, size in counts.memory.items()}
    adam = gigabytes.pop("adam")
    sizes = ", ".join(f"{dtype} {size}" for dtype, size in gigabytes.items())
    lines.append(f"Memory: {sizes}; to train with Adam in float32 {adam}.")
    if counts.note:
        lines.append(f"Note: {counts.note}.")
    return "\n".join(lines)
