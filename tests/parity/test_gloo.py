"""Expert parallelism against torch.distributed with gloo, over two and three processes: the usual
all-to-all layer with autograd, and the layer of this package with gloo's exchanges.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from moe_np.parallel import layer_step

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed"),
]
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_layer_is_that_of_all_to_all_single(tmp_path, ranks):
    from tests.support.gloo_rank import problem

    results = on_ranks(tmp_path, ranks)
    wanted = layer_step.arrays(layer_step.in_one_process(problem(ranks)))
    assert {name.partition(" ")[2] for name in results[0]} == set(wanted)
    for name, array in wanted.items():
        of_ranks = [result[f"torch {name}"] for result in results]
        if name.startswith("router"):
            assert all(grad.tobytes() == of_ranks[0].tobytes() for grad in of_ranks)
            np.testing.assert_allclose(of_ranks[0], array, rtol=1e-10, atol=1e-12)
        else:
            np.testing.assert_allclose(np.concatenate(of_ranks), array, rtol=1e-10, atol=1e-12)
        ours = [result[f"gloo {name}"] for result in results]
        ours = ours[-1] if name.startswith("router") else np.concatenate(ours)
        assert ours.tobytes() == array.tobytes(), f"{name}: other bits by gloo than in one process"


def on_ranks(folder, ranks):
    """What each rank writes."""
    program = ROOT / "tests" / "support" / "gloo_rank.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                program,
                str(rank),
                str(ranks),
                folder / "meet",
                folder / f"{rank}.npz",
            ],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            _, error = process.communicate(timeout=240)
            assert process.returncode == 0, error.decode()
    finally:
        for process in processes:
            process.kill()
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(ranks)]
