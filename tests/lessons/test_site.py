"""The pages: every module has one, docstrings come through unharmed, nothing is fetched from
outside.

CI builds all of it with warnings as errors (`python3 run.py site`); here is what can be said
without Sphinx.
"""

import importlib
import pathlib
import sys

import pytest

sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[2])
)  # lessons is a folder of the checkout
reference = importlib.import_module("lessons.site.reference")
builder = importlib.import_module("lessons.site.__main__")


def test_every_public_function_of_every_module_has_an_entry():
    pytest.importorskip("numba")  # the kernels' pages need it
    names = reference.modules()
    assert (
        "moe_np.routing.top_k" in names
        and "moe_np.mixtures.em" in names
        and "moe_np.__main__" not in names
    )
    for name in names:
        page = reference.page(name)
        for own, _ in reference.public(importlib.import_module(name)):
            assert f":: {own}(" in page, (name, own)


def test_prose_stays_prose_and_tables_stay_as_they_are():
    text = "Σ_i w* of `x_i`\nis |a|.\n\n    paper   here\n    x       y\n\nend  aligned"
    lines = reference.described(text, 0)
    assert r"Σ\_i w\* of \ ``x_i``\  is \|a\|." in lines
    assert "       paper   here" in lines and lines.count(".. code-block:: text") == 2


def test_a_signature_names_types_shortly():
    page = reference.page("moe_np.routing.top_k")
    assert (
        "dtype=float64)" in page
        and "<class" not in page
        and ".. py:function:: route(params, x, *, k, ren" in page
    )


def test_what_a_page_would_fetch_from_outside_is_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<script src="https://x/y.js"></script><a href="https://fine">', encoding="utf-8"
    )
    (tmp_path / "b.html").write_text(
        '<link rel="stylesheet" href="//x/s.css"><img src="c.png">', encoding="utf-8"
    )
    found = [(str(page), address) for page, address in builder.fetched_from_outside(tmp_path)]
    assert found == [("a.html", "https://x/y.js"), ("b.html", "//x/s.css")]
