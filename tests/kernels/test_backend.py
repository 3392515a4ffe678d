"""Which kernels run: as the environment asks, as the installation allows."""

import os
import subprocess
import sys

import pytest

LAYER = """
import numpy as np
from moe_np import kernels
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k
rng = np.random.default_rng(0)
x = rng.normal(size=(6, 4))
routing, router_cache = top_k.route(top_k.init(rng, 4, 8), x, k=2, renormalise=True)
out, cache = sparse_layer.forward(experts.SWIGLU.init(rng, 4, 8, 16), x, routing, experts.SWIGLU)
sparse_layer.backward(np.ones_like(out), cache)
print(kernels.backend(), out.round(9).sum())
"""
ROUTER = """
import numpy as np
from moe_np import kernels
from moe_np.routing import top_k
rng = np.random.default_rng(0)
routing, _ = top_k.route(top_k.init(rng, 4, 8), rng.normal(size=(6, 4)), k=2, renormalise=True)
print(kernels.backend(), routing.weight.round(9).sum())
"""
CODE = "from moe_np import kernels; print(kernels.backend(), kernels.backend())"
NO_NUMBA = "import sys; sys.modules['numba'] = None\n"


def backend(code=CODE, **environment):
    base = {k: v for k, v in os.environ.items() if k not in ("MOE_NP_KERNELS", "NUMBA_DISABLE_JIT")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**base, **environment}
    )
    return done.stdout.split()[:1], done.stderr


def numba_installed():
    return backend()[0] == ["numba"]


def test_numpy_on_request():
    assert backend(MOE_NP_KERNELS="numpy") == (["numpy"], "")


def test_without_numba_numpy_with_one_notice():
    for environment in ({}, {"MOE_NP_KERNELS": "numba"}):
        name, said = backend(NO_NUMBA + CODE, **environment)
        assert name == ["numpy"]
        assert (
            said
            == "moe_np: Numba is not installed; using the NumPy kernels (same results, slower)\n"
        )


@pytest.mark.seconds
def test_with_a_numba_that_refuses_numpy_with_one_notice(tmp_path):
    (tmp_path / "numba").mkdir()
    for error, reason in (
        ("ImportError('Numba needs NumPy 2.3 or less. Got 9.9.')", None),
        ("OSError('libllvmlite.so: cannot open\\nshared object')", "libllvmlite.so: cannot open"),
        ("SystemError()", "SystemError"),
    ):
        (tmp_path / "numba" / "__init__.py").write_text(f"raise {error}")
        name, said = backend(LAYER, PYTHONPATH=str(tmp_path))
        reason = reason or "Numba needs NumPy 2.3 or less. Got 9.9."
        assert name == ["numpy"]
        assert said == (
            f"moe_np: Numba cannot be imported ({reason}); "
            "using the NumPy kernels (same results, slower)\n"
        )


NO_PLACE = """
from numba.core import caching
def refuse(locator):
    raise PermissionError(13, "Permission denied")
caching._CacheLocator.ensure_cache_path = refuse
"""


# at night the whole layer, which is compiled three times: what a file and a folder do is the same
@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [ROUTER, pytest.param(LAYER, marks=pytest.mark.nightly)], ids=["router", "layer"]
)
def test_without_a_place_for_compiled_code_or_with_damaged_files(code, tmp_path):
    if not numba_installed():
        pytest.skip("needs Numba")
    from moe_np.kernels.machine import disk_cache

    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert backend(NO_PLACE + code) == (["numba"], f"moe_np: {disk_cache.NO_PLACE}\n")
    assert backend(code, **environment) == (["numba"], "")
    for i, index in enumerate(sorted(tmp_path.rglob("*.nbi"))):
        compiled = index.with_name(index.name.replace(".nbi", ".1.nbc"))
        os.truncate(*((index, 0) if i % 2 else (compiled, 1000)))
    assert backend(code, **environment) == (["numba"], f"moe_np: {disk_cache.DAMAGED}\n")


@pytest.mark.seconds
def test_jit_off_means_numpy_unless_asked_otherwise():
    if not numba_installed():
        pytest.skip("needs Numba")
    assert backend(NUMBA_DISABLE_JIT="1")[0] == ["numpy"]
    assert backend(NUMBA_DISABLE_JIT="1", MOE_NP_KERNELS="numba")[0] == ["numba"]


def test_a_wrong_name_is_an_error():
    assert "MOE_NP_KERNELS: wanted numpy or numba, got 'fast'" in backend(MOE_NP_KERNELS="fast")[1]
