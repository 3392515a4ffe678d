"""Without scikit-learn, and with an old one, the room gives one error that names the extra."""

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['sklearn'] = None; "
OLD = (
    "import sys, types; old = types.ModuleType('sklearn'); old.__path__ = []; "
    "utils = types.ModuleType('sklearn.utils'); utils.__path__ = []; "
    "validation = types.ModuleType('sklearn.utils.validation'); "
    "sys.modules |= {'sklearn': old, 'sklearn.utils': utils, "
    "'sklearn.utils.validation': validation}; "
)


@pytest.mark.parametrize("setting", [WITHOUT, OLD], ids=["without", "old"])
@pytest.mark.parametrize("module", ["estimators", "estimators.regressors"])
def test_the_error_names_the_extra(setting, module):
    code = f"{setting}import moe_np.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: moe_np.estimators needs scikit-learn 1.6 or later, the extra `estimators`: "
        'pip install "moe-np[estimators]"'
    )


def test_the_package_needs_no_sklearn():
    code = f"{WITHOUT}import moe_np; from moe_np.mixtures import em, hme_fit; print(dir(moe_np))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "'estimators'" in done.stdout, done.stderr
