"""The mutants of modules, and the list of those judged equivalent."""

import ast

import numpy as np
import pytest

from moe_np.layers import key_values
from moe_np.routing import top_k
from tests import mutation
from tests.support import module_mutants

SOURCE = '''
import os

SIZE = 3
EXAMPLE: dict = {"k": 2}

def f(x, y, *, axis: int = 1):
    """Docstring."""
    total = x.sum(axis=axis) / len(y)
    if total < 0:
        raise ValueError(f"{total:.3f}")
    x.sort(copy=False)
    return -g(x, y) and True
'''


def test_every_small_change_once():
    tree = ast.parse(SOURCE)
    header = "def f(x, y, *, axis: int={}):"
    total = "total = x.sum(axis=axis) / len(y)"
    condition = "if total < 0:"
    result = "return -g(x, y) and True"
    assert sorted((m.function, m.change) for m in module_mutants.mutants(tree)) == sorted(
        [
            ("", "SIZE = 3  ->  SIZE = 4"),
            ("f", f"{header.format(1)}  ->  {header.format(0)}"),
            ("f", f"{header.format(1)}  ->  {header.format(2)}"),
            ("f", f"{total}  ->  {total.replace('/', '*')}"),
            ("f", f"{condition}  ->  removed"),
            ("f", f"{condition}  ->  if not total < 0:"),
            ("f", f"{condition}  ->  if total <= 0:"),
            ("f", f"{condition}  ->  if total > 0:"),
            ("f", f"{condition}  ->  if total < 1:"),
            ("f", "raise ValueError(f'{total:.3f}')  ->  removed"),
            ("f", "x.sort(copy=False)  ->  removed"),
            ("f", f"{result}  ->  return -g(x, y) or True"),
            ("f", f"{result}  ->  return +g(x, y) and True"),
            ("f", f"{result}  ->  return -g(y, x) and True"),
            ("f", f"{result}  ->  return -g(x, y) and False"),
        ]
    )
    before = ast.dump(tree)
    for mutant in module_mutants.mutants(tree):
        with module_mutants.changed(mutant):
            assert ast.dump(tree) != before
            compile(tree, "changed", "exec")
        assert ast.dump(tree) == before


def test_what_is_judged_equivalent_is_of_a_module_and_has_a_reason():
    judged = mutation.judged()
    assert judged and all(why.strip() for why in judged.values())
    assert {key.partition(": ")[0] for key in judged} <= set(mutation.modules())


def test_a_sample_hardly_changes_where_code_is_added():
    cases = mutation.cases_of("a.py", ast.parse("def f(x):\n    return " + " + ".join("x" * 40)))
    sample = mutation.sample(cases, 10, 0)
    assert len({case.key for case in sample}) == 10
    assert mutation.sample(cases[1:], 10, 0)[:5] == [c for c in sample if c != cases[0]][:5]
    assert mutation.sample(cases, 10, 1) != sample


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("function", "change"),
    [
        ("init", "scale: float=1.0, dtype: DType=np.float64) -> Params:  ->  def init("),
        (
            "init",
            "* scale / np.sqrt(D)).astype(dtype)}  ->  return {'w': (rng.normal(size=(D, E)) /",
        ),
    ],
    ids=["default", "body"],
)
def test_an_imported_function_gets_the_changed_code_in_a_forked_process(function, change):
    path = mutation.modules()["routing/top_k.py"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    cases = mutation.cases_of("routing/top_k.py", tree)
    (case,) = [c for c in cases if c.mutant.function == function and change in c.mutant.change]

    def deviation():
        return top_k.init(np.random.default_rng(0), 4, 3, **options)["w"].std()

    def work():
        return 10 * mutation.put_in_place(case, tree, path) + (deviation() != before)

    options = {} if change.startswith("scale") else {"scale": 3.0}
    before = deviation()
    assert mutation.in_a_fork(lambda: int(work() != 11), 60.0) == 0
    assert deviation() == before


def test_a_method_gets_its_changed_default_in_a_forked_process():
    path = mutation.modules()["layers/key_values.py"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    cases = mutation.cases_of("layers/key_values.py", tree)
    (case,) = [c for c in cases if c.mutant.change.endswith("def free_row(self, T: int=2) -> int:")]
    free_row = key_values.KeyValues.free_row

    def work():
        return not mutation.put_in_place(case, tree, path) or free_row.__defaults__ != (2,)

    assert mutation.in_a_fork(lambda: int(work()), 60.0) == 0
    assert free_row.__defaults__ == (1,)


@pytest.mark.seconds
def test_a_constant_of_a_module_needs_a_new_process():
    path = mutation.modules()["routing/kmeans.py"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    cases = mutation.cases_of("routing/kmeans.py", tree)
    (case,) = [case for case in cases if case.mutant.before == "CAUSAL = True"]
    assert not mutation.put_in_place(case, tree, path)


def test_the_score(capsys):
    tree = ast.parse("SIZE = 3\nRATE = 0.5\n")
    cases = mutation.cases_of("a.py", tree)
    outcomes = {c.key: mutation.Outcome(c.key, "SIZE" in c.key, "") for c in cases}
    assert mutation.report(cases, outcomes) == 0.5
    assert capsys.readouterr().out.splitlines() == [
        "alive: a.py: : RATE = 0.5  ->  RATE = 1.0",
        "2 of 2 mutants tried: 1 killed, 1 alive, 0 judged equivalent; mutation score 50.0 %",
    ]
