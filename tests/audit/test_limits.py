"""Code that hangs, exits, prints, or ends the process: the audit goes on."""

import pytest

from moe_np.audit import limits, worker
from moe_np.audit.calling import Settings
from moe_np.base.checks import InputError

CODE = """
import os, sys, time
import numpy as np
print("this is no JSON")

def router(x, w, k=2, training=False):
    print("nor is this")
    if training:
        HOW
    logits = x @ w
    index = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    e = np.exp(np.take_along_axis(logits, index, axis=1))
    return e / e.sum(axis=1, keepdims=True), index
"""
ONLY = ("indices", "the seed decides", "one token")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        pytest.param("time.sleep(100)", "did not answer in time", marks=pytest.mark.slow),
        ("os._exit(3)", "ended"),
        ("sys.exit('no')", "raises"),
        ("raise ValueError('no')", "raises"),
    ],
)
def test_the_audit_goes_on(tmp_path, monkeypatch, how, text):
    """With the usual limit for every check: on a busy machine the others would miss a shorter one
    too.
    """
    monkeypatch.setattr(limits, "LEAST", limits.LIMIT)
    path = tmp_path / "mine.py"
    path.write_text(CODE.replace("HOW", how), encoding="utf-8")
    about, findings = limits.in_child(f"{path}:router", Settings(), only=ONLY)
    verdicts = {finding.check: finding for finding in findings}
    assert about["name"] == "router" and set(verdicts) == set(ONLY)
    assert verdicts["the seed decides"].verdict == "wrong"
    assert text in verdicts["the seed decides"].text
    assert verdicts["indices"].verdict == verdicts["one token"].verdict == "right"


@pytest.mark.seconds
def test_a_file_that_does_not_load(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0", encoding="utf-8")
    _, findings = limits.in_child(f"{path}:router", Settings(), 3.0)
    assert [finding.check for finding in findings] == ["the first call"]
    assert "ZeroDivisionError" in findings[0].got


def test_a_thread_that_hangs_is_left_behind():
    import time

    def router(x, w):
        if len(x) == 1:
            time.sleep(30)
        return x @ w - (x @ w).min() + 1

    _, findings = limits.in_thread(router, Settings(), 1.5, ("one token", "no tokens"))
    assert "did not answer" in findings[0].text and findings[1].verdict in ("right", "convention")


def test_names_with_dots_and_modules():
    from moe_np.routing import top_k

    assert worker.load("moe_np.routing.top_k") is top_k
    assert worker.load("moe_np.routing.top_k:Cache.count") is top_k.Cache.count
    with pytest.raises(InputError, match="has no nothing"):
        worker.load("moe_np.routing.top_k:nothing")
