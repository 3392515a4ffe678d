"""The pieces of mathematics of gates and models that public code gets wrong: each
has a test, and those without another home are here.

A test of item NN has `errata_NN` in its name; `pytest -k errata_06` runs those of one item.
"""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import moe_np
from moe_np.base import numerics
from moe_np.experiments.chen2022.runs import VARIANTS
from moe_np.models import patch_cnn
from tests.support.syntax import syntax

ITEMS = {
    1: "the load estimator of noisy top-k leaves the expert itself out of the threshold",
    2: "the gradient through that threshold, and through its sigma",
    3: "top-k weights: renormalised, a softmax over kept logits; else all logits get a gradient",
    4: "k = 1 renormalised teaches the router nothing and is refused",
    5: "squared coefficients of variation: population variance over the squared mean",
    6: "Switch's load-balancing loss: f before capacity and constant, P the full softmax",
    7: "the z-loss is (ln E)² at zero logits; padding is left out, not set to zero",
    8: "a dropped token is no row and contributes exactly 0",
    9: "capacity is rounded up and at least 1, and does not see a constant on all logits",
    10: "no generator, no noise; noise is the router's alone and has weights of its own",
    11: "the lowest index wins a tie",
    12: "rows of one token are added up, none lost",
    13: "causality, router by router",
    14: "EM: the gate step by IRLS with step-halving",
    15: "EM for classification uses the likelihood of the label",
    16: "loss and gradient share one scale",
    17: "balance losses are returned and added, never stored",
    18: "Chen et al. 2022: paper and code differ, and both are here",
    19: "a balancing bias enters the selection only",
    20: "no fastmath that assumes away nan and infinity",
    21: "rotary positions: the layouts, and the backward pass by the negative angle",
    22: "grouped queries: key heads are repeated, their gradients summed",
    23: "a tied embedding has the gradients of both its uses",
    24: "nothing to attend to is 0 forward and backward; the mask with a cache",
    25: "a window of w is the token itself and w − 1 before it",
    26: "a loss is a mean over the valid targets of all micro-batches",
    27: "the load-balancing loss is one term per layer",
    28: "weight decay goes by name",
    29: "Adam moves experts without tokens",
    30: "clipping has one norm over all leaves",
    31: "names in a checkpoint that map to nothing are an error, and nothing is guessed",
    32: "jitter reaches the router alone, and capacity drops",
    33: "dropout in experts has a mask per assignment",
    34: "sampling: temperature first, the token that crosses, ties",
}
TESTS, PACKAGE = Path(__file__).parent, Path(moe_np.__file__).parent


def covered(folder):
    """The items named by test functions in a folder."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("test_*.py"))]
    names = re.findall(r"^ *def (test_\w+)", "\n".join(texts), re.MULTILINE)
    return {int(number) for name in names for number in re.findall(r"errata_(\d\d)", name)}


def test_every_item_has_a_test():
    found = covered(TESTS)
    missing = {number: text for number, text in ITEMS.items() if number not in found}
    assert not missing, f"no test is named after {missing}"
    assert found <= set(ITEMS), "a test is named after an item there is not"


def test_the_index_notices_a_missing_test(tmp_path):
    text = (
        "def test_errata_03_a(): pass\ndef helper_errata_05(): pass\n"
        "class A:\n    def test_errata_07(self): pass"
    )
    (tmp_path / "test_a.py").write_text(text, encoding="utf-8")
    (tmp_path / "other.py").write_text("def test_errata_11():\n    pass", encoding="utf-8")
    assert covered(tmp_path) == {3, 7}


# --- 18 -------------------------------------------------------------------------------------------


def test_errata_18_paper_and_code_of_chen_2022_differ_where_they_are_said_to():
    """Gate and loss of both variants, by hand, for two samples on three experts."""
    gates_and_losses = {name: (v["gate"], v["loss"]) for name, v in VARIANTS.items()}
    assert gates_and_losses == {"paper": ("softmax", "once"), "code": ("raw", "twice")}
    h = np.array([[1.0, 0.5, 0.2], [-2.0, -1.0, -1.5]])
    noise = np.array(
        [[0.1, 0.9, 0.3], [0.2, 0.0, 0.9]]
    )  # moves both choices: to expert 1, to expert 2
    for gate, expected in (("softmax", numerics.softmax(h)[[0, 1], [1, 2]]), ("raw", [1.4, -0.6])):
        (expert, weight), _ = patch_cnn.gate_forward(h, noise, gate=gate)
        assert expert.tolist() == [1, 2]
        np.testing.assert_allclose(weight, expected, rtol=1e-12)
    out, y = np.array([[2.0, -1.0], [0.5, 0.7]]), np.array([0, 1])
    p = np.array([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-0.2))])  # of the right class
    once, twice = (patch_cnn.loss_forward(out, y, loss=loss)[0] for loss in ("once", "twice"))
    assert once == pytest.approx(-np.log(p).mean(), rel=1e-12)
    assert twice == pytest.approx(np.log1p(np.exp(1 - 2 * p)).mean(), rel=1e-12)


# --- 20 -------------------------------------------------------------------------------------------

COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "stencil", "cfunc"}
HARMLESS = {
    "reassoc",
    "contract",
    "nsz",
    "arcp",
    "afn",
}  # sums in any order, fused products; nan and inf stay what they are


def name_of(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def constants(tree):
    """The values of the names that a module assigns at its top."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def compiled(tree, imported=None):
    """How many functions a module compiles, and the fastmath flags it asks for, in a call or in a
    dict of options; constants of the module, and imported ones, are filled in.
    """
    named = {**(imported or {}), **constants(tree)}
    number = 0
    flags = []
    for node in ast.walk(tree):
        number += isinstance(node, (ast.Name, ast.Attribute)) and name_of(node) in COMPILERS
        values = []
        if isinstance(node, ast.keyword) and node.arg == "fastmath":
            values = [node.value]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values = [v for k, v in pairs if isinstance(k, ast.Constant) and k.value == "fastmath"]
        for value in values:
            value = named[value.id] if isinstance(value, ast.Name) else value
            flags.append(ast.literal_eval(value))
    return number, flags


@pytest.mark.seconds
def test_errata_20_no_flag_that_assumes_away_nan_and_infinity():
    words = re.compile("|".join(["fastmath", *COMPILERS]))
    paths = [path for path in PACKAGE.rglob("*.py") if words.search(path.read_text("utf-8"))]
    trees = {path: syntax(path) for path in sorted(paths)}
    shared = {}
    for path, tree in trees.items():
        if "kernels" in path.parts:
            shared |= constants(tree)
    number, bad = 0, []
    for path, tree in trees.items():
        count, flags = compiled(tree, shared)
        number += count
        bad += [
            (path.name, f)
            for f in flags
            if f is not False and (f is True or not set(f) <= HARMLESS)
        ]
    assert number > 20, "this test has to see the kernels"
    assert not bad, f"masks are −inf, so these are not allowed: {bad}"


@pytest.mark.parametrize("flags", ["True", "{'nnan', 'reassoc'}", "{'ninf'}", "{'fast'}", "FLAGS"])
def test_errata_20_what_is_not_allowed_is_seen(flags):
    tree = ast.parse(
        f"FLAGS = {{'fast'}}\n@numba.njit(cache=True, fastmath={flags})\ndef f(x):\n    return x"
    )
    number, (found,) = compiled(tree)
    assert number == 1 and (found is True or not found <= HARMLESS)
