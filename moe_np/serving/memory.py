"""Memory: sizes as text, and the resident memory of this process (resident set size)."""

import contextlib
import ctypes
import os
import re
import sys

from moe_np.base import checks
from moe_np.base.checks import InputError

UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
UNITS |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def bytes_of(name: str, text: str) -> int:
    """A size such as 64MB, 1.5 GB or 32MiB in bytes. Raises InputError for anything else."""
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not parts or parts[2].lower() not in units:
        raise InputError(f"{name}: wanted a size such as 64MB, got {checks.text(text)}")
    return int(float(parts[1]) * units[parts[2].lower()])


def megabytes(size: float) -> str:
    """A number of bytes in MB (10⁶ bytes)."""
    return f"{size / 1e6:,.1f} MB"


def resident() -> int | None:
    """The memory of this process that is in RAM now, in bytes.

    Where the system tells only the largest value so far (macOS), it is that one; None where it
    tells nothing.
    """
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(ImportError):
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else 1024 * largest
    return None


def give_back() -> None:
    """Give memory that was freed back to the system, so that `resident` is that of what is there.
    Only where the C library can (glibc).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
