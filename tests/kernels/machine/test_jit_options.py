"""Options of compiled loops: what threads run lets other threads of Python run too."""

import pytest

from tests.support.kernels import jit_only, numba

if numba:
    from moe_np.kernels import hme_online, jacobs1991, nowlan1991, sparse_layer, top_k
    from moe_np.kernels.machine import activations, jit_options


@jit_only
def test_entries_release_the_gil_and_are_kept_on_disk():
    entries = [sparse_layer._forward, sparse_layer._backward, top_k.gate_blocks, top_k._backward]
    entries += [top_k._linear_backward, jacobs1991.mixture_run, jacobs1991.net_run]
    entries += [nowlan1991.gradients, hme_online._hme_epoch, hme_online.net_epoch]
    for loop in entries:
        assert loop.targetoptions["nogil"], loop
        assert loop.stats.cache_path is not None, loop


@jit_only
def test_inner_loops_have_no_entry_from_python():
    assert jit_options.INNER["no_cpython_wrapper"] and jit_options.INLINE["forceinline"]
    assert activations.relu_forward.targetoptions["no_cpython_wrapper"]
    with pytest.raises(Exception):  # noqa: B017 - Numba has no name for it
        activations.relu_forward(0, 0, None, None)
