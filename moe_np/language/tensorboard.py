"""TensorBoard events of a training run, where the package `tensorboardX` is installed.

They lie in FOLDER/tensorboard: `tensorboard --logdir FOLDER` draws them. `metrics.jsonl` has all of
their numbers; the events are a copy for those who watch a run in TensorBoard.
"""

import pathlib
from collections.abc import Generator
from typing import Any

from moe_np.language.evaluation import Evaluation
from moe_np.language.run_progress import Progress

EVENTS = "tensorboard"
Records = Generator[Progress | Evaluation, None, None]


def recorded(records: Records, folder: pathlib.Path) -> Records:
    """The same records; each is written as events before it is given on.

    A run that goes on from a checkpoint hides the events after it, which are written again.
    Without `tensorboardX` nothing is written.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        yield from records
        return
    writer = None
    number = 0
    try:
        for record in records:
            if isinstance(record, Progress):
                number = record.step
            if writer is None:  # the first record says where the run goes on
                writer = SummaryWriter(str(folder / EVENTS), purge_step=number)
            for name, value in scalars(record).items():
                writer.add_scalar(name, value, number)
            yield record
    finally:
        records.close()
        if writer is not None:
            writer.close()


def scalars(record: Progress | Evaluation) -> dict[str, float]:
    """{name of the curve: its value} of one record."""
    if isinstance(record, Evaluation):
        return {
            "held_out/loss": record.loss,
            "held_out/perplexity": record.perplexity,
            "held_out/bits_per_byte": record.bits_per_byte,
        }
    curves: dict[str, Any] = {
        "training/loss": record.loss,
        "training/gradient_norm": record.gradient_norm,
        "training/learning_rate": record.learning_rate,
        "training/tokens_per_second": record.tokens / record.seconds if record.seconds else 0.0,
    }
    for layer, value in enumerate(record.balance):
        curves[f"balance_loss/layer_{layer}"] = value
    for layer, (load, dropped) in enumerate(zip(record.load, record.dropped, strict=True)):
        curves[f"largest_load/layer_{layer}"] = max(load) / max(sum(load), 1)
        curves[f"dropped_share/layer_{layer}"] = dropped
    return curves
