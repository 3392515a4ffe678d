"""Mutation test of the rooms `mixtures`, `routing`, `layers` and `models`: which small changes of
their code does no test notice?

    .venv/bin/python -m tests.mutation [PART ...] [--sample 400] [--seed 0] [--results FOLDER]

A sample of all mutants (`tests.support.module_mutants`) is drawn by a seed. For each of them the
quick tests run that call the changed function: first tests/ROOM/test_MODULE.py, then those of the
other files; with the compiled kernels, and with the NumPy kernels where a test then calls other
functions. The first failure ends it. Printed are the mutants that are alive and the mutation score:
the part that is killed of those that are not equivalent. `tests/mutation_equivalent.toml` lists the
mutants judged equivalent, with the reason.

No file of the package is changed. The tests are collected once. For each mutant a forked process
gets the changed code in the place of the function's code, so that most mutants cost less than a
second. A change of what runs while modules are imported needs a new process.

Which test calls what is measured first, in a minute or two. The measurement and the outcomes are
kept in the folder of results: the same call goes on where it was interrupted, and measures only
test files that have changed since, or all of them after a change of a room. `--retry` tries those
again that are alive, which is what one wants after a test has been written; PART takes only mutants
whose name contains it, such as `routing/top_k.py`; `--list` only prints them. `--control`
first runs all tests in the same way without a mutant, and none of them may fail. The status is 1
where the score is below 99 %.
"""

import argparse
import ast
import collections
import functools
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from types import CodeType, FunctionType
from typing import NamedTuple

import pytest

from tests.support.module_mutants import Mutant, changed, code_objects, mutants

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "moe_np"
ROOMS = ("mixtures", "routing", "layers", "models")
TESTS = (*ROOMS, "kernels")  # folders whose quick tests run
EQUIVALENT = CHECKOUT / "tests" / "mutation_equivalent.toml"
WANTED = 0.99
MODES = ("", "numpy")  # values of MOE_NP_KERNELS
CHOICE = "kernels/__init__.py: backend"  # the function that reads it
WALL = 900.0  # seconds for one mutant, whatever it waits for
MEMORY = 12 << 30  # bytes of address space


class Case(NamedTuple):
    """A mutant in its module."""

    module: str  # "routing/top_k.py"
    mutant: Mutant
    number: int  # of those with the same change in the same function

    @property
    def key(self) -> str:
        """The name of the mutant, by which outcomes are kept and judged."""
        again = f"  #{self.number}" if self.number else ""
        return f"{self.module}: {self.mutant.function}: {self.mutant.change}{again}"


class Measured(NamedTuple):
    """What a test did without mutants."""

    seconds: float  # of processor time
    functions: frozenset[str]  # called by it, as "routing/top_k.py: route"


class Run(NamedTuple):
    """A test with kernels of one kind."""

    mode: str
    name: str  # the test's


# --- Which mutants --------------------------------------------------------------------------------


def modules() -> dict[str, pathlib.Path]:
    """The files of the rooms, by their names within the package."""
    paths = (path for room in ROOMS for path in sorted((PACKAGE / room).rglob("*.py")))
    return {path.relative_to(PACKAGE).as_posix(): path for path in paths}


def cases_of(module: str, tree: ast.Module) -> list[Case]:
    """All mutants of a module."""
    numbers: collections.Counter = collections.Counter()
    cases = []
    for mutant in mutants(tree):
        name = (mutant.function, mutant.change)
        cases.append(Case(module, mutant, numbers[name]))
        numbers[name] += 1
    return cases


def sample(cases: list[Case], size: int, seed: int) -> list[Case]:
    """A sample that hardly changes where code is added: the smallest digests of the names."""

    def draw(case):
        return hashlib.sha256(f"{seed} {case.key}".encode()).digest()

    return sorted(cases, key=draw)[:size]


def digest_of_files(paths: Iterable[pathlib.Path]) -> str:
    """A short digest of the contents of files."""
    contents = (path.read_bytes() for path in paths)
    return hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in contents)).hexdigest()


def judged() -> dict[str, str]:
    """The mutants judged equivalent, and why."""
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {f"{entry['module']}: {entry['mutant']}": entry["why"] for entry in entries}


# --- Tests of one process -------------------------------------------------------------------------


class Tests:
    """A plugin of pytest: collects the tests, and then calls `work` instead of running them."""

    def __init__(self, work):
        self.work = work
        self.items = {}
        self.is_failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        self.items = {item.nodeid: item for item in session.items}
        self.work(self)
        return True

    def pytest_runtest_logreport(self, report):
        self.is_failed |= report.failed

    def passes(self, run: Run) -> bool:
        """Whether a test passes, from its set-up to its end."""
        os.environ["MOE_NP_KERNELS"] = run.mode
        self.is_failed = False
        item = self.items[run.name]
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.is_failed


def collect(work, paths) -> int:
    """Let pytest collect these tests, then call `work` with the plugin."""
    options = ["--capture=no", "-m", "not slow", "--import-mode=importlib"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal"]
    return pytest.main([*options, *paths], plugins=[Tests(work)])


def name_of_function(code: CodeType) -> str | None:
    """The function of the rooms to which the code belongs: "routing/top_k.py: route"."""
    path = code.co_filename
    if not path.startswith(f"{PACKAGE}{os.sep}"):
        return None
    module = pathlib.PurePath(path).relative_to(PACKAGE).as_posix()
    return f"{module}: {code.co_qualname.split('.<locals>')[0]}"


class Calls:
    """Notes which code is called while it is switched on."""

    def __init__(self):
        self.codes = set()

    def __enter__(self):
        self.codes.clear()
        sys.settrace(lambda frame, event, arg: self.codes.add(frame.f_code))
        return self

    def __exit__(self, *error):
        sys.settrace(None)

    def functions(self) -> set[str]:
        """The functions of the package among them."""
        return {name for code in self.codes if (name := name_of_function(code))}


def in_a_fork(function, seconds: float) -> int:
    """The exit status of a function that runs in a forked process; 1 where it is killed."""
    process = os.fork()
    if not process:
        status = 1
        try:
            silent = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(silent, descriptor)
            status = function()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) and 1
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 1


def first_failure(tests: Tests, runs: list[Run], seconds: dict[Run, float], report) -> int:
    """Run tests in this process up to the first that fails: 1, or 0 where all pass. Before each
    test `report` is called with its number. A test gets ten times its processor time, and five
    seconds.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number, run in enumerate(runs):
        report(number)
        limit = int(time.process_time() + 6 + 10 * seconds[run])
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        if not tests.passes(run):
            return 1
    return 0


# --- Which test calls what ------------------------------------------------------------------------


class Coverage:
    """What each test calls, kept in a file as lines of JSON."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.measured: dict[Run, Measured | None] = {}  # None: it fails

    def measure(self, tests: Tests) -> None:
        """Run what has not been measured since its file was changed."""
        paths = {item.path for item in tests.items.values()}
        digests = {path: digest_of_files([path, *modules().values()]) for path in paths}
        digest_of = {name: digests[item.path] for name, item in tests.items.items()}
        self._read(digest_of)
        for mode in MODES:
            runs = [
                Run(mode, name)
                for name, item in tests.items.items()
                if not mode or self._chooses(item)
            ]
            missing = [run for run in runs if run not in self.measured]
            if missing:
                print(f"measuring {len(missing)} tests {mode}", flush=True)
                in_a_fork(functools.partial(self._write, tests, missing, digest_of), 3600.0)
                self._read(digest_of)
        failed = sum(result is None for result in self.measured.values())
        if failed:
            print(f"{failed} runs of tests fail without mutants and are left out", flush=True)

    def _chooses(self, item):
        """Whether a test takes the kernels that the environment wants."""
        usual = self.measured.get(Run(MODES[0], item.nodeid))
        is_fixed = "backend" in item.fixturenames  # the fixture of both kinds
        return usual is not None and CHOICE in usual.functions and not is_fixed

    def _read(self, digest_of):
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ()
        for line in lines:
            mode, name, digest, seconds, functions = json.loads(line)
            if digest_of.get(name) == digest:
                result = None if seconds is None else Measured(seconds, frozenset(functions))
                self.measured[Run(mode, name)] = result

    def _write(self, tests, runs, digest_of):
        calls = Calls()
        with self.path.open("a", encoding="utf-8") as file:
            for run in runs:
                start = time.process_time()
                with calls:
                    is_passed = tests.passes(run)
                seconds = time.process_time() - start if is_passed else None
                line = [*run, digest_of[run.name], seconds, sorted(calls.functions())]
                file.write(json.dumps(line) + "\n")
        return 0

    def runs(self, name: str, module: str) -> list[Run]:
        """The runs that call this function, those of the module's test file first, short ones
        before long ones. Runs with NumPy kernels only where they call other functions.
        """
        mirrored = mirrored_test(module)

        def order(run):
            return not run.name.startswith(mirrored), run.mode, self.measured[run].seconds

        return sorted(filter(lambda run: self._matters(run, name), self.measured), key=order)

    def _matters(self, run, name):
        result = self.measured[run]
        if result is None or name not in result.functions:
            return False
        usual = self.measured.get(Run(MODES[0], run.name))
        return run.mode == MODES[0] or usual is None or usual.functions != result.functions


def mirrored_test(module: str) -> str:
    """How the names of the tests of a module's test file begin."""
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}::"


# --- One mutant -----------------------------------------------------------------------------------


def put_in_place(case: Case, tree: ast.Module, path: pathlib.Path) -> bool:
    """Give the functions of an imported module the changed code. Whether that is enough: it is not
    for what runs while modules are imported.
    """
    with changed(case.mutant):
        new = {place_of(code): code for code in code_objects(compile(tree, path, "exec"))}
    old = {place_of(code): code for code in code_objects(compile(tree, path, "exec"))}
    different = {place for place, code in new.items() if code != old.get(place)}
    module = importlib.import_module(dotted(case.module))
    live = collections.defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename == str(path):
            live[place_of(thing.__code__)].append(thing)
    is_done = False
    for place in different:
        for function in live[place]:
            if len(function.__code__.co_freevars) != len(new[place].co_freevars):
                return False
            function.__code__ = new[place]
            is_done = True
    return is_done or put_defaults_in_place(case, tree, module, live)


def put_defaults_in_place(case, tree, module, live):
    """Give a function its changed defaults."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and case.mutant.node in ast.walk(node.args):
            places = [p for p in live if p[1] <= node.lineno <= node.body[0].lineno]
            places = [place for place in places if place[0].rpartition(".")[2] == node.name]
            header = ast.FunctionDef(node.name, node.args, [ast.Pass()], [], None)
            ast.copy_location(header, node)
            names = dict(vars(module))
            with changed(case.mutant):
                whole = ast.fix_missing_locations(ast.Module([header], []))
                exec(compile(whole, "defaults", "exec"), names)
            for function in (function for place in places for function in live[place]):
                function.__defaults__ = names[node.name].__defaults__
                function.__kwdefaults__ = names[node.name].__kwdefaults__
                return True
    return False


def place_of(code: CodeType) -> tuple:
    """A name for code that the change of another place leaves as it is."""
    return code.co_qualname, code.co_firstlineno, tuple(code.co_positions())[:1]


def dotted(module: str) -> str:
    """The name by which a module is imported."""
    return f"moe_np.{module.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with its change."""

    def __init__(self, name: str, path: pathlib.Path, code: CodeType):
        self.name, self.path, self.code = name, path, code

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        is_package = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=is_package
        )
        return spec

    def exec_module(self, module):
        exec(self.code, vars(module))


def in_a_new_process(case: Case, runs: list[Run], seconds: dict[Run, float]) -> tuple[int, str]:
    """The outcome of tests that start with the import of the changed module."""
    with tempfile.TemporaryDirectory() as folder:
        task = pathlib.Path(folder, "task.json")
        listed = [[*run, seconds[run]] for run in runs]
        task.write_text(json.dumps([case.module, case.key, listed]), encoding="utf-8")
        command = [sys.executable, "-m", "tests.mutation", "--task", str(task)]
        reached = task.with_suffix(".reached")
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            done = subprocess.run(
                command, cwd=CHECKOUT, timeout=WALL, stdout=subprocess.DEVNULL, **streams
            )
        except subprocess.TimeoutExpired:
            return 1, "time"
        number = int(reached.read_text()) if reached.exists() else None
        killer = "import" if number is None else runs[number].name
        return (done.returncode and 1), killer


def do_task(path: pathlib.Path) -> int:
    """The work of the new process."""
    module, key, listed = json.loads(path.read_text(encoding="utf-8"))
    seconds = {Run(mode, name): s for mode, name, s in listed}
    source = modules()[module]
    tree = ast.parse(source.read_text(encoding="utf-8"))
    case = next(case for case in cases_of(module, tree) if case.key == key)
    with changed(case.mutant):
        code = compile(tree, source, "exec")
    sys.meta_path.insert(0, Finder(dotted(module), source, code))
    outcome = []
    reached = path.with_suffix(".reached")

    def work(tests):
        runs = [run for run in seconds if run.name in tests.items]
        missing = len(runs) < len(seconds)  # a test that is not there any more fails
        outcome.append(
            missing or first_failure(tests, runs, seconds, lambda n: reached.write_text(str(n)))
        )

    collect(work, sorted({run.name.partition("::")[0] for run in seconds}))
    return int(outcome[0]) if outcome else 1


# --- All ------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What became of a mutant."""

    key: str
    is_killed: bool
    by: str  # the test that failed


class Trial:
    """Tries mutants with the collected tests."""

    def __init__(self, tests: Tests, coverage: Coverage, imported: set[str], trees: dict):
        self.tests = tests
        self.coverage = coverage
        self.imported = imported  # functions that are called during imports
        self.trees = trees
        self.seconds = {run: m.seconds for run, m in coverage.measured.items() if m is not None}

    def outcome(self, case: Case) -> Outcome:
        """Whether a test notices the mutant, and which."""
        name = f"{case.module}: {case.mutant.function}"
        runs = self.coverage.runs(name, case.module) or self._runs_of_module(case.module)
        if case.mutant.before.startswith("def "):  # a default can be read without a call
            mirrored = mirrored_test(case.module)
            runs = list(dict.fromkeys([*runs, *(r for r in self.seconds if mirrored in r.name)]))
        reached = os.memfd_create("reached")

        def work():
            if not put_in_place(case, self.trees[case.module], modules()[case.module]):
                return 0
            report = lambda number: os.pwrite(reached, b"%8d" % number, 0)  # noqa: E731
            return first_failure(self.tests, runs, self.seconds, report)

        is_killed = in_a_fork(work, WALL)
        number = int(os.pread(reached, 8, 0) or -1)
        os.close(reached)
        if number >= 0 and is_killed:
            return Outcome(case.key, True, runs[number].name)
        if number < 0 or name in self.imported:
            is_killed, by = in_a_new_process(case, self._runs_of_module(case.module), self.seconds)
            return Outcome(case.key, bool(is_killed), by if is_killed else "")
        return Outcome(case.key, False, "")

    def false_alarms(self) -> list[Run]:
        """The runs of tests that fail without a mutant, all in one forked process."""
        runs = sorted(self.seconds)
        failed = []
        reached = os.memfd_create("reached")
        rest = runs
        while rest:
            report = lambda number: os.pwrite(reached, b"%8d" % number, 0)  # noqa: E731
            work = functools.partial(first_failure, self.tests, rest, self.seconds, report)
            if not in_a_fork(work, 3600.0):
                break
            number = int(os.pread(reached, 8, 0))
            failed.append(rest[number])
            rest = rest[number + 1 :]
        os.close(reached)
        return failed

    def _runs_of_module(self, module):
        """The runs of a module's test file, those that call anything of the module, and the others
        of the room, which may read its constants.
        """
        room = module.partition("/")[0]
        mirrored = mirrored_test(module)
        results = self.coverage.measured
        runs = [run for run in self.seconds if run.name.startswith(f"tests/{room}/")]
        runs = [run for run in runs if run.mode == MODES[0]]

        def order(run):
            calls = any(f.startswith(f"{module}: ") for f in results[run].functions)
            return not run.name.startswith(mirrored), not calls, self.seconds[run]

        return sorted(runs, key=order)


def read_outcomes(path: pathlib.Path) -> dict[str, Outcome]:
    """The last outcome of each mutant."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    outcomes = (Outcome(*json.loads(line)) for line in lines)
    return {outcome.key: outcome for outcome in outcomes}


def report(cases: list[Case], outcomes: dict[str, Outcome]) -> float:
    """Print the survivors and the score."""
    why = judged()
    tried = [outcomes[case.key] for case in cases if case.key in outcomes]
    killed = sum(outcome.is_killed for outcome in tried)
    alive = [outcome.key for outcome in tried if not outcome.is_killed]
    rest = [key for key in alive if key not in why]
    for key in sorted(rest):
        print(f"alive: {key}")
    score = killed / max(1, killed + len(rest))
    print(
        f"{len(tried)} of {len(cases)} mutants tried: {killed} killed, {len(rest)} alive, "
        f"{len(alive) - len(rest)} judged equivalent; mutation score {100 * score:.1f} %"
    )
    return score


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="only mutants named like this")
    parser.add_argument("--sample", type=int, default=400, help="mutants drawn; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retry", action="store_true", help="try those again that are alive")
    parser.add_argument("--control", action="store_true", help="first run all tests on no mutant")
    parser.add_argument("--list", action="store_true", help="print the sample only")
    folder = pathlib.Path(tempfile.gettempdir(), "moe_np_mutation")
    parser.add_argument("--results", type=pathlib.Path, default=folder, help=f"or {folder}")
    parser.add_argument("--task", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Try the sample, print the survivors and the score."""
    args = arguments()
    os.environ.pop("MOE_NP_KERNELS", None)
    if args.task:
        return do_task(args.task)
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in modules().items()}
    cases = [case for name, tree in trees.items() for case in cases_of(name, tree)]
    for key in sorted(judged().keys() - {case.key for case in cases}):
        print(f"judged equivalent, but not there any more: {key}")
    cases = [c for c in cases if not args.parts or any(part in c.key for part in args.parts)]
    cases = sample(cases, args.sample or len(cases), args.seed)
    if args.list:
        print(*(case.key for case in cases), sep="\n")
        return 0
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "outcomes.jsonl"
    calls = Calls()

    def work(tests):
        calls.__exit__()
        coverage = Coverage(args.results / "coverage.jsonl")
        coverage.measure(tests)
        trial = Trial(tests, coverage, calls.functions(), trees)
        if args.control:
            print(
                *(f"false alarm: {run}" for run in trial.false_alarms()), "control: done", sep="\n"
            )
        try_all(cases, trial, path, args.retry)

    with calls:
        collect(work, [f"tests/{folder}" for folder in TESTS])
    return int(report(cases, read_outcomes(path)) < WANTED)


def try_all(cases: list[Case], trial: Trial, path: pathlib.Path, is_retry: bool) -> None:
    """Try the mutants of which the file holds no outcome, or a survivor where that is asked for."""
    before = read_outcomes(path)
    rest = [case for case in cases if case.key not in before]
    if is_retry:
        alive = [c for c in cases if c.key in before and not before[c.key].is_killed]
        rest += [case for case in alive if case.key not in judged()]
    start = time.monotonic()
    for number, case in enumerate(rest, 1):
        outcome = trial.outcome(case)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")
        state = f"killed by {outcome.by}" if outcome.is_killed else "ALIVE"
        minutes = (time.monotonic() - start) / 60
        print(f"{number}/{len(rest)} {minutes:.1f} min  {case.key[:150]}: {state}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
