"""Compiled code on disk: kept, compiled anew where its files are damaged or have no place."""

import errno
import gc

import pytest

from moe_np import kernels
from tests.support.kernels import jit_only, numba

if numba:
    from numba.core import caching

    from moe_np.kernels.machine import disk_cache

pytestmark = jit_only


def double(x):
    return x + x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for compiled code; notices have not been printed before."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernels.notice.cache_clear()
    yield tmp_path
    kernels.notice.cache_clear()


def call():
    """Compile or load `double`, call it, and return (files loaded, files looked for in vain)."""
    function = disk_cache.njit(cache=True, error_model="numpy")(double)
    assert function(1.5) == 3
    stats = function.stats
    return sum(stats.cache_hits.values()), sum(stats.cache_misses.values())


def compile_cfunc():
    signature = numba.types.float64(numba.types.float64)
    assert disk_cache.cfunc(signature)(double).ctypes(1.5) == 3


def test_compiled_code_is_loaded_the_second_time(folder, capsys):
    assert call() == (0, 1)
    assert call() == (1, 0)
    assert capsys.readouterr().err == ""


def test_after_a_change_of_any_loop_it_is_compiled_again(folder, monkeypatch):
    """What a loop calls may stand in another file, at which Numba does not look."""
    assert call() == (0, 1)
    monkeypatch.setattr(disk_cache, "_sources", lambda: "others")
    assert call() == (0, 1)
    assert call() == (1, 0)


def test_without_cache_nothing_is_written(folder):
    assert disk_cache.njit()(double)(1.5) == 3
    assert not list(folder.rglob("*.nb*"))


def test_the_garbage_collector_rests_during_compilation_only(folder):
    states = []

    def same(x):
        return x

    @numba.extending.overload(same)
    def _same(x):
        states.append(gc.isenabled())
        return (lambda x: x) if x == numba.types.float64 else None

    loop = disk_cache.njit(cache=True)(lambda x: same(x))
    assert loop(1.5) == 1.5 and gc.isenabled()
    with pytest.raises(numba.core.errors.TypingError):
        loop(1)
    assert gc.isenabled() and set(states) == {False}


@pytest.mark.parametrize("use", [call, compile_cfunc], ids=["njit", "cfunc"])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 1, 20, -1])  # bytes; -1: all but the last
def test_files_cut_short_are_made_anew_with_one_notice(folder, capsys, use, suffix, left):
    use()
    for file in folder.rglob(f"*.{suffix}"):
        file.write_bytes(file.read_bytes()[:left])
    use()
    use()
    assert capsys.readouterr().err == f"moe_np: {disk_cache.DAMAGED}\n"


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_files_with_other_bytes_are_made_anew(folder, capsys, suffix):
    call()
    for file in folder.rglob(f"*.{suffix}"):
        file.write_bytes(b"\0" * file.stat().st_size)
    assert call() == (0, 1)
    assert call() == (1, 0)
    assert capsys.readouterr().err == f"moe_np: {disk_cache.DAMAGED}\n"


@pytest.mark.parametrize("use", [call, compile_cfunc], ids=["njit", "cfunc"])
def test_a_file_that_cannot_be_written_costs_one_notice(folder, capsys, monkeypatch, use):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    use()
    use()
    text = disk_cache.NOT_KEPT.format("No space left on device")
    assert capsys.readouterr().err == f"moe_np: {text}\n"


@pytest.mark.parametrize("use", [call, compile_cfunc], ids=["njit", "cfunc"])
def test_without_a_folder_it_compiles_with_one_notice(folder, capsys, monkeypatch, use):
    def refuse(locator):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    use()
    use()
    assert capsys.readouterr().err == f"moe_np: {disk_cache.NO_PLACE}\n"
