"""Which kernels run: as the environment asks, as the installation allows."""

import os
import subprocess
import sys

import pytest

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


def test_jit_off_means_numpy_unless_asked_otherwise():
    if not numba_installed():
        pytest.skip("needs Numba")
    assert backend(NUMBA_DISABLE_JIT="1")[0] == ["numpy"]
    assert backend(NUMBA_DISABLE_JIT="1", MOE_NP_KERNELS="numba")[0] == ["numba"]


def test_a_wrong_name_is_an_error():
    assert "MOE_NP_KERNELS: wanted numpy or numba, got 'fast'" in backend(MOE_NP_KERNELS="fast")[1]
