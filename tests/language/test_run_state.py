"""The state of a run comes back with its bits, and a file of another model is refused."""

import json

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.language import run_state
from moe_np.training import loop


def state():
    rng = np.random.default_rng(0)
    params = {
        "layers": [{"w": rng.normal(size=(3, 2)).astype(np.float32)}],
        "g": rng.normal(size=4),
    }
    begun = loop.initial_state(params)
    for leaf in (*leaves(begun.optimiser.m).values(), *leaves(begun.optimiser.v).values()):
        leaf[...] = rng.random(leaf.shape)
    return begun._replace(number=17, optimiser=begun.optimiser._replace(t=17))


@pytest.mark.parametrize("best", [None, 1 / 3])
def test_it_comes_back_with_its_bits(tmp_path, best):
    written = state()
    run_state.write(tmp_path, written, best)
    read, read_best = run_state.read(tmp_path, loop.initial_state(written.params))
    assert read_best == best
    assert read.number == read.optimiser.t == 17
    for tree, other in (
        *((read.params, written.params), (read.optimiser.m, written.optimiser.m)),
        (read.optimiser.v, written.optimiser.v),
    ):
        for path, leaf in leaves(other).items():
            assert leaves(tree)[path].tobytes() == leaf.tobytes()


def test_a_folder_without_a_state_begins(tmp_path):
    begun = loop.initial_state({"w": np.ones(2)})
    assert run_state.read(tmp_path, begun) == (begun, None)


def test_the_state_of_another_model_is_refused(tmp_path):
    run_state.write(tmp_path, state(), None)
    other = loop.initial_state({"layers": [{"w": np.ones((3, 3), np.float32)}], "g": np.ones(4)})
    with pytest.raises(ValueError, match=r"m.layers.0.w: wanted shape \(3, 3\), got \(3, 2\)"):
        run_state.read(tmp_path, other)
    other = loop.initial_state({"h": np.ones(4)})
    with pytest.raises(ValueError, match=r"wanted the array m\.h, it is not there"):
        run_state.read(tmp_path, other)


def test_metrics_are_cut_after_an_update(tmp_path):
    for step in range(1, 6):
        run_state.append(tmp_path, {"step": step})
    with open(tmp_path / run_state.METRICS, "a", encoding="utf-8") as file:
        file.write('{"st')
    run_state.cut_metrics(tmp_path, 3)
    lines = (tmp_path / run_state.METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    run_state.cut_metrics(tmp_path / "nowhere", 3)
