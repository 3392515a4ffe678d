"""Where a package is missing there is one error that names its extra."""

import sys

import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common import extras
from moe_np.experiments.health import methods
from moe_np.experiments.images import digit_images


def test_what_is_installed():
    assert extras.installed("numpy") and not extras.installed("no_such_package")
    extras.require("numpy", "nothing")
    with pytest.raises(InputError, match=r"no_such_package: wanted it installed, the extra `x`"):
        extras.require("no_such_package", "x")


@pytest.mark.parametrize(
    "call", [lambda: methods.table(methods.CANCER), digit_images.digits.__wrapped__]
)
def test_without_scikit_learn_there_is_one_error(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r'scikit-learn: .*pip install "moe-np\[estimators\]"'):
        call()
