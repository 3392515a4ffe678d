"""`njit` and `cfunc` of Numba, whose files of compiled code may be damaged or have no place.

Numba keeps compiled code in files, and stops with an error where no folder for them can be written,
and where a file was cut short, as by a full disk. Here the code is compiled anew, with one notice.
"""

import contextlib
import functools
import gc
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numba
from numba.core.caching import FunctionCache

from moe_np.kernels import notice

NO_PLACE = (
    "no folder can be written to keep compiled code, so each process compiles it again; "
    "the environment variable NUMBA_CACHE_DIR names a folder"
)
NOT_KEPT = "compiled code cannot be kept on disk ({}), so each process compiles it again"
DAMAGED = "compiled code on disk is damaged; it is compiled again"


@functools.cache
def _sources() -> str:
    """A hash of the source of all compiled loops."""
    files = sorted(pathlib.Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


class _Cache(FunctionCache):
    """Numba's files of one function; an error in them is no error of the function."""

    def __init__(self, function):
        super().__init__(function)
        # Numba looks at the file of the function; what the function calls may stand in others
        self._cache_file._source_stamp = (self._cache_file._source_stamp, _sources())

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever `pickle` makes of a damaged file
            _drop(self)
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, or an index that could not be dropped
            _not_kept(error)


def _not_kept(error):
    notice(NOT_KEPT.format(getattr(error, "strerror", None) or type(error).__name__))


def _drop(cache):
    notice(DAMAGED)
    with contextlib.suppress(OSError):
        cache.flush()


def _cache_of(function):
    try:
        return _Cache(function)
    except (RuntimeError, OSError):  # Numba finds no folder
        notice(NO_PLACE)
        return None


@contextlib.contextmanager
def _collector_rests() -> Iterator[None]:
    """Python's garbage collector rests. Most of what the compiler makes stays, and to look through
    it again and again takes a tenth of the time of compilation.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def njit(*, cache: bool = False, **options: Any) -> Callable[[Callable], Any]:
    """`numba.njit`; with `cache`, the compiled code is kept on disk where that is possible."""

    def decorate(function):
        compiled = numba.njit(**options)(function)
        if cache and not numba.config.DISABLE_JIT:
            compiled._cache = _cache_of(function) or compiled._cache
            compiled.compile = _collector_rests()(compiled.compile)
        return compiled

    return decorate


def cfunc(signature: Any) -> Callable[[Callable], Any]:
    """`numba.cfunc`; the compiled code is kept on disk where that is possible."""

    @_collector_rests()
    def decorate(function):
        cache = _cache_of(function)
        try:
            return numba.cfunc(signature, cache=cache is not None)(function)
        except OSError as error:
            _not_kept(error)
        except Exception:
            if cache is None:
                raise
            _drop(cache)
        return numba.cfunc(signature)(function)

    return decorate
