"""Start the ranks of a program under MPI, watch them, and end all of them when one of them fails.

    installation, reason = launch.find()
    ended = launch.run(["-m", "moe_np", "parallel", ...], ranks=4, installation=installation)

runs  mpiexec -n 4 python -m mpi4py -m moe_np parallel ...  with one BLAS thread per rank. `mpiexec`
is the one beside this Python, which is where `pip install mpich` puts it, or else the first one of
the path. What each maker's needs (Open MPI refuses the superuser, and more ranks than processors,
unless it is printed otherwise) is in FLAGS.

No program hangs. `-m mpi4py` ends all ranks for an uncaught exception; `moe_np.parallel.mpi` for
an error, an early end and a left-out exchange. The rest is seen here: a rank whose process is gone,
and ranks that come to no exchange within the time limit.
"""

import codecs
import contextlib
import importlib.util
import itertools
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from moe_np.base import checks
from moe_np.parallel import failed_rank, progress

THREADS = {
    f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM", "NUMBA")
}
FLAGS = {  # maker -> of mpiexec
    "Open MPI": ["--oversubscribe", "--allow-run-as-root"],
}
MAKERS = {  # what `mpiexec --version`, or the library, says of itself
    "Intel MPI": r"Intel\(R\) MPI",
    "Open MPI": r"Open ?MPI|OpenRTE|PRTE|prterun",
    "MPICH": r"MPICH|HYDRA",
    "Microsoft MPI": r"Microsoft MPI|MS-MPI",
}
INTERVAL = 0.05  # seconds between two looks at the ranks
STARTING = 30.0  # seconds more than the time limit, until all ranks have come to an exchange
GRACE = 2.0  # seconds that mpiexec gets to end all ranks after one is gone
TIME_LIMIT = 120.0  # seconds
INSTALL = "pip install mpi4py mpich brings both (on Windows: mpi4py impi-rt)"


class Installation(NamedTuple):
    """An MPI that can be used."""

    mpiexec: str
    maker: str


class Ended(NamedTuple):
    """How a program over ranks ended."""

    status: int  # 0: well
    seconds: float
    message: str | None  # which rank failed, where a rank could not say so itself


# --- find an MPI ----------------------------------------------------------------------------------


def find(folder: pathlib.Path | None = None) -> tuple[Installation | None, str]:
    """The MPI of this Python, or None with the reason: -> (installation or None, a line of text).

    folder   where to look for mpiexec first; None: beside this Python
    """
    if importlib.util.find_spec("mpi4py") is None:
        return None, f"mpi4py is not installed; {INSTALL}"
    folder = pathlib.Path(sys.executable).parent if folder is None else folder
    mpiexec = shutil.which("mpiexec", path=str(folder)) or shutil.which("mpiexec")
    if mpiexec is None:
        return (
            None,
            f"there is no mpiexec, neither beside {sys.executable} nor in the path; {INSTALL}",
        )
    printed = _output([mpiexec, "--version"])
    maker = _maker(printed)
    if maker is None:
        return None, f"{mpiexec} is broken: to --version it answers {checks.text(printed.strip())}"
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    printed = _output([sys.executable, "-c", code])
    library = _maker(printed)
    if library is None:
        last = (printed.strip().splitlines() or ["nothing"])[-1]
        return None, f"mpi4py cannot load its MPI: {last}; {INSTALL}"
    if library != maker:
        return None, f"{mpiexec} is of {maker}, but mpi4py uses {library}: install one of them"
    return Installation(mpiexec, maker), f"{maker}, {mpiexec}"


def _maker(text):
    return next((name for name, pattern in MAKERS.items() if re.search(pattern, text)), None)


def _output(command):
    """All that a command prints, in at most 30 seconds."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"error: {error}"
    return done.stdout.decode(errors="replace")


# --- run the ranks --------------------------------------------------------------------------------


def run(
    arguments: Sequence[str],
    ranks: int,
    installation: Installation,
    *,
    time_limit: float = TIME_LIMIT,
    received: Sequence[str] | None = None,
) -> Ended:
    """Run `python -m mpi4py ARGUMENTS` on every rank, and wait for the end of all.

    time_limit   seconds in which no rank comes to another exchange, after which all are ended
    received     names of signals that this process has got, as they come: each is passed on to
                 all ranks, which end in order. None: a signal ends the ranks at once

    Output of the ranks goes where that of this process goes.
    """
    checks.integer("ranks", ranks, minimum=1)
    checks.number("time_limit", time_limit, greater_than=0)
    flags = FLAGS.get(installation.maker, [])
    command = [installation.mpiexec, "-n", str(ranks), *flags, sys.executable, "-m", "mpi4py"]
    with tempfile.TemporaryDirectory(prefix="moe_np_ranks", ignore_cleanup_errors=True) as folder:
        path = pathlib.Path(folder) / "ranks"
        lines = progress.create(path, ranks)
        environment = {**os.environ, **THREADS, progress.VARIABLE: str(path)}
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        printed: list[str] = []
        pairs = [(process.stdout, sys.stdout), (process.stderr, sys.stderr)]
        readers = [threading.Thread(target=_pass_on, args=(*pair, printed)) for pair in pairs]
        for reader in readers:
            reader.daemon = True
            reader.start()
        gone: list[list[int]] = []
        try:
            message = _watch(process, lines, time_limit, gone, [] if received is None else received)
            status = process.poll()  # None: mpiexec is ended here
        finally:
            _end(process, lines)
        for reader in readers:
            reader.join(GRACE)
        if message is None and not all(lines["ended"]):
            message = failed_rank.message(lines, "".join(printed), gone, status)
        status = process.returncode
        seconds = time.perf_counter() - start
        return Ended(1 if message is not None and status == 0 else status, seconds, message)


NOISE = re.compile(  # what MPICH adds when a rank fails, beside the message of the rank
    r"=======|=   |\s*$|YOUR APPLICATION TERMINATED|This typically refers|Please see the FAQ|"
    r"Abort\(-?\d+\) on node"
)


def _pass_on(stream, output, printed):
    """Pass on what the ranks print, and keep what mpiexec says of failures. A progress bar has
    lines that end with a carriage return.
    """
    rest = ""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while text := stream.read1(65536):
        *lines, rest = re.split(r"(?<=[\r\n])", rest + decoder.decode(text))
        for line in lines:
            _print_line(line, output, printed)
    _print_line(rest, output, printed)


def _print_line(line, output, printed):
    if NOISE.match(line) and not line.endswith("\r"):
        printed.append(line)
    else:
        output.write(line)
        output.flush()


def _watch(process, lines, time_limit, gone, received):
    """Wait until mpiexec ends, a rank is gone without an end, or the time limit is over: for that
    the message, else None.

    gone   gets the ranks whose processes went, in groups: the first ones first. Of the ranks of one
           group the order is not known
    """
    changed = time.perf_counter()
    went = seen = None
    informed: set[tuple[str, int]] = set()
    with _handles() as (ends, handles):
        while process.poll() is None:
            _wait(lines, ends, handles, gone)
            _pass_on_signals(received, lines, informed)
            now = time.perf_counter()
            state = lines.tobytes()
            if state != seen:
                seen, changed = state, now
            starting = not lines["exchanges"].all()
            if now - changed > time_limit + STARTING * starting:
                return failed_rank.message_of_silence(lines, time_limit)
            if not failed_rank.first_gone(lines, gone):
                went = None
            elif went is None:
                went = now
            elif now - went > GRACE:
                break
        _wait(lines, ends, handles, gone)
    return None


def _pass_on_signals(received, lines, informed):
    """Send what was received to all ranks that are known by now, each signal once. On Windows
    Ctrl-C reaches all processes of a console.
    """
    if os.name != "posix":
        return
    known = [int(line["pid"]) for line in lines if line["pid"]]
    for name, pid in itertools.product(tuple(received), known):
        if (name, pid) not in informed:
            informed.add((name, pid))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.Signals[name])


@contextlib.contextmanager
def _handles():
    """What tells the ends of processes (on Linux, else None), and {rank: handle of its process}."""
    handles: dict[int, int] = {}
    ends = select.epoll() if hasattr(os, "pidfd_open") else None
    try:
        yield ends, handles
    finally:
        for handle in handles.values():
            os.close(handle)
        if ends is not None:
            ends.close()


def _wait(lines, ends, handles, gone):
    """Sleep, but wake when the process of a rank goes, where the system can tell. Its events come
    in their order, also where this process wakes late. `gone` gets who went.
    """
    unwatched = [rank for rank in range(len(lines)) if rank not in handles]
    went = []
    if ends is None:
        time.sleep(INTERVAL)
    else:
        for rank in unwatched:
            with contextlib.suppress(OSError):
                if lines[rank]["pid"]:
                    handles[rank] = os.pidfd_open(int(lines[rank]["pid"]))
                    ends.register(handles[rank], select.EPOLLIN)
        rank_of = {handle: rank for rank, handle in handles.items()}
        for handle, _ in ends.poll(INTERVAL):
            ends.unregister(handle)
            went.append(rank_of[handle])
    if not unwatched:
        gone += [[rank] for rank in went]
        return
    known = {rank for group in gone for rank in group}
    if went or not known.issuperset(failed_rank.missing(lines)):
        # a second look: while the first went from rank to rank, more may have gone, and earlier
        gone.append(sorted({*went, *failed_rank.missing(lines)} - known))


def _end(process, lines):
    """End mpiexec and all ranks that are still there."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if os.name != "posix":
        return
    for line in lines:
        if line["pid"] and not failed_rank.is_gone(line) and not line["ended"]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(line["pid"]), signal.SIGKILL)
