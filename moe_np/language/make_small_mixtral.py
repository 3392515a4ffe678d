"""Make `small_mixtral`: the language model that comes with the package.

    python -m moe_np.language.make_small_mixtral FOLDER

FOLDER gets the training run (`moe-np train`, some six minutes on two cores), and `small_mixtral`
beside this file the best of its models, in bfloat16, with its tokeniser. Another processor rounds
other sums, so the script makes a model that is as good and has other bits; the hash in
`shipped_model.py` is that of the one that is shipped.
"""

import pathlib
import sys

from moe_np.data.text import tokenisers
from moe_np.language import corpus, run_folder, shipped_model
from moe_np.language.model_files import load
from moe_np.models import checkpoints

UPDATES = 2500
CHANGES = {
    "d_model": 64,
    "d_head": 16,
    "hidden": 64,
    "vocabulary": 1024,
    "validation_tokens": 32768,
    "learning_rate": 0.004,
}


def make(folder: str) -> None:
    """Train in `folder`, or go on there, and write the model that is shipped."""
    run = run_folder.open_run(
        folder, corpus.shipped(), updates=UPDATES, changes=CHANGES, checkpoint_every=250
    )
    for record in run_folder.train(run):
        if not isinstance(record, run_folder.Progress):
            print(f"perplexity {record.perplexity:.2f}, {record.bits_per_byte:.3f} bits per byte")
    best = pathlib.Path(folder) / "best"
    model = load(best)
    checkpoints.save(shipped_model.FOLDER, model.config, model.params, dtype="bfloat16")
    tokenisers.save(
        shipped_model.FOLDER / "tokeniser.json", tokenisers.load(best / "tokeniser.json")
    )
    print(f"SHA256 = {shipped_model.digest()!r}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("wanted the folder of the training run")
    make(sys.argv[1])
