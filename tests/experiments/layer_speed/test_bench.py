"""The bench of the layer: contestants that compute the same, a floor worked by hand, rows that a
program can read.
"""

import json
import os

import numpy as np
import pytest

from moe_np import cli
from moe_np.experiments.layer_speed import bench, contestants
from moe_np.experiments.layer_speed.contestants import EXPERTS, Shape, problem
from moe_np.layers.sparse_layer import by_expert
from moe_np.routing import top_k

KEYS = {
    "tokens",
    "d",
    "hidden",
    "experts",
    "k",
    "mode",
    "impl",
    "expert",
    "seconds",
    "ratio_dense",
    "ratio_floor",
}


@pytest.mark.parametrize("kind", EXPERTS)
def test_the_numpy_contestants_compute_the_same(kind):
    p = problem(kind, Shape(50, 6, 5), np.float64)
    (out, dx, grads), (out2, dx2, grads2) = (
        contestants.moe_np(p)(True),
        contestants.numpy_mask_loop(p)(True),
    )
    np.testing.assert_allclose(out, out2, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dx, dx2, rtol=1e-9, atol=1e-12)
    assert set(grads) == set(grads2)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads2[name], rtol=1e-8, atol=1e-11)
    np.testing.assert_array_equal(contestants.numpy_mask_loop(p)(False), out2)


@pytest.mark.parametrize("kind", EXPERTS)
def test_the_dense_net_has_the_operations_of_the_active_experts_and_a_right_gradient(kind):
    p = problem(kind, Shape(9, 4, 3))
    out, dx, grads = contestants.dense_numpy(p)(True)
    assert grads["w1"].shape == (4, 2 * 16) and out.shape == dx.shape == (9, 4)
    params = EXPERTS[kind].init(np.random.default_rng(0), 4, 1, 32, dtype=np.float32)
    y, cache = EXPERTS[kind].forward(params, p.x, np.array([0, 9]))
    dx2, grads2 = EXPERTS[kind].backward(p.dout, cache)
    np.testing.assert_allclose(out, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx, dx2, rtol=1e-4, atol=1e-5)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads2[name][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", EXPERTS)
def test_the_products_alone_are_those_of_the_layer(kind):
    pytest.importorskip("numba")
    p = problem(kind, Shape(40, 6, 5), np.float64)
    y, drows, dw = contestants.products_alone(p)(True)
    routing, _ = top_k.route(p.router, p.x, k=2, renormalise=True)
    order, offsets = by_expert(routing.expert, 5)
    rows, w = p.x[routing.token[order]], p.params
    for m in range(5):
        own, up = slice(offsets[m], offsets[m + 1]), w.get("w3", w["w1"])[m]
        dh = y[own] @ w["w2"][m].T
        np.testing.assert_allclose(y[own], rows[own] @ w["w1"][m] @ w["w2"][m])
        np.testing.assert_allclose(
            drows[own], dh @ w["w1"][m].T + (dh @ up.T if kind == "swiglu" else 0)
        )
        np.testing.assert_allclose(dw["w1"][m], rows[own].T @ dh)
        np.testing.assert_allclose(dw["w2"][m], (rows[own] @ w["w1"][m]).T @ y[own])


def test_the_floor_by_hand():
    shape = Shape(100, 10, 4)  # hidden 40, k 2
    # two matrices: 2 operations · 100 tokens · 2 experts · 2 matrices · 10 · 40, and the router's 2
    # · 100 · 10 · 4
    assert bench.floor("relu", shape, False, 1e6, 1e30) == pytest.approx(0.320 + 0.008)
    assert bench.floor("swiglu", shape, True, 1e6, 1e30) == pytest.approx(3 * (0.480 + 0.008))
    # 4 bytes · (4 experts · 2 matrices · 400 + x and out of 1,000 each); training: weights thrice,
    # dout and dx as well
    assert bench.floor("relu", shape, False, 1e30, 1e6) == pytest.approx(4e-6 * (3200 + 2000))
    assert bench.floor("relu", shape, True, 1e30, 1e6) == pytest.approx(4e-6 * (9600 + 4000))
    few = Shape(1, 10, 64)  # one token reaches 2 of 64 experts
    assert bench.floor("relu", few, False, 1e30, 1e6) == pytest.approx(4e-6 * (1600 + 20))


def test_the_blas_settings_are_lifted_and_come_back(monkeypatch):
    for name in bench.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    with bench.unpinned() as found:
        assert found == {"OPENBLAS_CORETYPE": "Haswell"} and "OPENBLAS_CORETYPE" not in os.environ
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"


def test_contestants_that_differ_are_named():
    right = {"out": 1.0, "x": 2.0}
    bench._check_same(
        "relu", Shape(1, 1, 1), {"moe_np": right, "torch_loop": {"out": 1.001, "x": 2.0}}
    )
    with pytest.raises(ArithmeticError, match="torch_loop: another x than moe_np"):
        bench._check_same(
            "relu", Shape(1, 1, 1), {"moe_np": right, "torch_loop": {"out": 1.0, "x": -2.0}}
        )


def test_a_peer_that_dies_is_left_out_and_we_are_not():
    class Runner:
        def ask(self, name, *message):
            if name in dying:
                raise ChildProcessError(f"{name}: its process ended with status -9")
            return 1.0

    names, said, dying = ["moe_np", "torch_loop", "dense_numpy"], [], ["torch_loop"]
    assert bench._ask_all(Runner(), names, said.append, "time") == {
        "moe_np": 1.0,
        "dense_numpy": 1.0,
    }
    assert names == ["moe_np", "dense_numpy"] and said[0].startswith(
        "torch_loop: its process ended with status -9"
    )
    dying = ["moe_np"]
    with pytest.raises(ChildProcessError, match="moe_np"):
        bench._ask_all(Runner(), names, said.append, "time")


def test_an_unknown_kind_of_expert_is_refused(capsys):
    assert cli.main(["bench", "--expert", "cubic"]) == 2
    assert (
        capsys.readouterr().err
        == "moe-np: error: --expert: wanted one of swiglu, relu; got 'cubic'\n"
    )


@pytest.mark.slow
def test_the_command(capsys):
    assert cli.main(["bench", "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) == KEYS and row["seconds"] > 0 and row["ratio_floor"] > 0 for row in rows)
    names = {row["impl"] for row in rows}
    assert names >= {"moe_np", "dense_numpy", "numpy_mask_loop"} and len(rows) == 2 * 2 * len(names)
    assert all(row["ratio_dense"] == 1 for row in rows if row["impl"] == "dense_numpy")
    for tokens in (256, 1024):  # one floor for all
        seconds = [
            row["seconds"] / row["ratio_floor"]
            for row in rows
            if (row["tokens"], row["mode"]) == (tokens, "forward")
        ]
        np.testing.assert_allclose(seconds, seconds[0])
    table = bench.table(
        rows,
        {
            "expert": "swiglu",
            "cores": 2,
            "sgemm": (1e9, 2e9),
            "bandwidth": 3e9,
            "unset": {},
            "rounds": 2,
        },
    )
    assert "sgemm 1 to 2 GFLOP/s from shape to shape, copy 3 GB/s" in table
    assert table.count("\n| 256 |") == table.count("\n| 1024 |") == 2 and "moe_np / dense" in table
