"""Which rank failed, where it cannot say so itself: by its line of the file in which ranks write
where they stand (`moe_np.parallel.progress`), by its process, and by what mpiexec prints.

MPI ends the other ranks within milliseconds. Where it is not known which rank went first, all that
may have been the first are named.
"""

import os
import pathlib
import re
import signal
from collections.abc import Sequence
from typing import Any

from moe_np.parallel.progress import Lines

KILLED = (signal.SIGTERM, 9)  # by which MPI, or the launcher, ends the other ranks


def missing(lines: Lines) -> list[int]:
    """The ranks whose processes are not there, though they have not ended in order."""
    return [rank for rank, line in enumerate(lines) if is_gone(line)]


def is_gone(line: Any) -> bool:
    """Whether a rank's process is not there, though the rank has not ended in order; line: its."""
    pid = int(line["pid"])
    if os.name != "posix" or pid == 0 or line["ended"]:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # a process that ended, and of which its parent has not yet heard
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
        return fields[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return False


def working(lines: Lines) -> list[int]:
    """The ranks that neither wait in an exchange nor have ended in order. A rank between two runs
    has ended, and works if others are in the next run.
    """
    in_order = _in_order(lines)
    return [rank for rank, line in enumerate(lines) if not (line["waiting"] or in_order[rank])]


def first_gone(lines: Lines, gone: Sequence[Sequence[int]]) -> list[int]:
    """The ranks among which is the first one whose process went before it had ended in order.

    gone   in groups: the first ones first; of the ranks of one group the order is not known
    """
    in_order = _in_order(lines)
    left = ([rank for rank in group if not in_order[rank]] for group in gone)
    return next(filter(None, left), [])


def _in_order(lines):
    last = lines["exchanges"] == lines["exchanges"].max()
    ended = lines["ended"].astype(bool)
    return ended & (last | ended.all())


def message(lines: Lines, printed: str, gone: Sequence[Sequence[int]], status: int | None) -> str:
    """The rank that failed without a word: by what mpiexec says, as the first that went, or as the
    only one that did not wait in an exchange.

    printed   by mpiexec
    gone      as in `first_gone`
    status    of mpiexec; None: it had to be ended
    """
    numbers = [re.search(r"Abort\(-?\d+\) on node (\d+)", printed)]
    numbers += [re.search(r"process rank (\d+)|rank (\d+) with PID", printed)]
    failed = [int(next(filter(None, match.groups()))) for match in numbers if match]
    first = first_gone(lines, gone)
    failed += first if len(first) == 1 else []
    at_work = working(lines)
    if len(at_work) == 1:
        failed += at_work
    pid = re.search(r"PID (\d+) RUNNING", printed)
    code = re.search(r"EXIT CODE: (\d+)", printed)
    # MPICH kills the others, and may then name one of these
    if pid and int(pid[1]) in lines["pid"] and not (code and int(code[1]) in KILLED):
        failed.append(lines["pid"].tolist().index(int(pid[1])))
    failed = [rank for rank in failed if rank < len(lines)]
    if failed:
        signalled = status is None or status in KILLED or status - 128 in KILLED
        end = "was killed, or ended early," if signalled else f"ended with status {status}"
        return f"rank {failed[0]}: its process {end} {_place(lines[failed[0]])}"
    ranks = at_work or [rank for rank, line in enumerate(lines) if not line["ended"]]
    return f"rank {', '.join(map(str, ranks))}: ended early {_place(lines[ranks[0]])}"


def message_of_silence(lines: Lines, time_limit: float) -> str:
    """The ranks that have come to the fewest exchanges, after a time limit without any."""
    least = lines["exchanges"].min()
    behind = [rank for rank, n in enumerate(lines["exchanges"]) if n == least]
    names = ", ".join(map(str, behind))
    waiting = len(lines) - len(behind)
    rest = f"; {waiting} others wait for it" if waiting else ""
    place = _place(lines[behind[0]])
    return f"rank {names}: no exchange for {time_limit:g} s, the time limit, {place}{rest}"


def _place(line):
    if line["exchanges"] == 0:
        return "before its first exchange"
    return f"after it came to exchange {line['exchanges']}, {line['name'].decode()!r}"
