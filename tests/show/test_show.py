"""The package `moe_np.show`: its three parts are imported when they are first touched."""

import importlib
import inspect
import subprocess
import sys

import pytest

import moe_np.show


def printed_by(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


def test_importing_it_imports_none_of_its_parts():
    code = "import sys, moe_np.show; "
    code += "print([m for m in ('numpy', 'matplotlib') if m in sys.modules], dir(moe_np.show))"
    assert printed_by(code) == "[] ['steps', 'view', 'walk']"


@pytest.mark.seconds
def test_a_part_is_an_attribute():
    assert printed_by("import moe_np.show; print(moe_np.show.walk.route.__name__)") == "route"
    assert printed_by("from moe_np.show import view; print(view.view.__name__)") == "view"
    for name in moe_np.show.__all__:
        part = getattr(moe_np.show, name)
        assert inspect.ismodule(part) and part is importlib.import_module(f"moe_np.show.{name}")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'moe_np\.show' has no attribute 'film'"):
        _ = moe_np.show.film
