"""The audit in NumPy: every wrong router of the bank is named, no router of the package accused."""

import inspect
import json
import sys

import numpy as np
import pytest

from moe_np import audit, cli, routing
from moe_np.audit import (
    balance_value,
    capacity_rule,
    catalogue,
    causality,
    edge_cases,
    expected_load,
    gradient_flow,
    identity,
    noise,
    padding,
    report,
)
from moe_np.audit import cli as audit_cli
from moe_np.base.checks import InputError
from tests.audit.bank import numpy_bank

PATIENT = ("--time-limit", "100")  # other tests may keep the machine busy
BANK = "tests/audit/bank/numpy_bank.py"


@pytest.mark.parametrize(("name", "erratum"), numpy_bank.WRONG.items())
def test_a_wrong_router_is_named(name, erratum):
    limit = 0.5 if "hangs" in name else 20
    result = audit.audit(getattr(numpy_bank, name), time_limit=limit)
    if erratum is None:
        assert result.faults and not result.errata
    else:
        assert result.errata == [erratum]
    for finding in result.faults:
        assert finding.text and (finding.got or finding.input), finding


@pytest.mark.parametrize("name", routing.routers())
def test_a_router_of_the_package_is_not_accused(name):
    result = audit.assert_router(routing.routers()[name])
    verdicts = {finding.check: finding.verdict for finding in result.findings}
    assert verdicts["reference router"] == "right"
    assert sum(verdict == "right" for verdict in verdicts.values()) >= 9


def test_conventions_are_no_errors():
    def floor(x, w, capacity_factor=1.0):
        C = max(1, int(capacity_factor * len(x) / w.shape[1]))
        probs, expert, kept = numpy_bank.switch_weights(x, w, C)
        return probs.max(axis=1, initial=0) * kept, expert

    def not_divided_by_k(x, w, k=2):
        def loss(logits, gate, index):
            f = np.bincount(index.ravel(), minlength=4) / len(x)
            return 4 * (f * numpy_bank.softmax(logits).mean(axis=0)).sum()

        return numpy_bank.with_loss(x, w, k, loss)

    result = audit.assert_router(floor)
    assert verdict(result, "capacity") == ("convention", 9)
    result = audit.assert_router(not_divided_by_k)
    assert verdict(result, "balance loss") == ("convention", 6)


def verdict(result, check):
    return next((f.verdict, f.erratum) for f in result.findings if f.check == check)


def test_every_check_is_in_the_catalogue():
    modules = (
        *(balance_value, capacity_rule, causality, edge_cases),
        *(expected_load, gradient_flow, identity, noise, padding),
    )
    functions = {
        function
        for module in modules
        for _, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and str(inspect.signature(function)).endswith("-> list[moe_np.audit.findings.Finding]")
        and not function.__name__.startswith("_")
    }
    assert functions == set(catalogue.CHECKS.values())


def test_assert_router_shows_the_table():
    with pytest.raises(AssertionError, match=r"errata 3 .* reference router"):
        audit.assert_router(numpy_bank.softmax_twice)
    with pytest.raises(AssertionError, match="differs from switch"):
        audit.assert_router(numpy_bank.load_that_counts_itself, like="switch")
    audit.assert_router(routing.top_k, like="top_k", k=3, renormalise=False)


@pytest.mark.parametrize("target", [3, "nowhere.py:router", f"{BANK}:nothing_there", "no_module:x"])
def test_what_is_no_router_is_refused(target):
    with pytest.raises(InputError):
        audit.audit(target)


def test_sizes_are_taken_from_the_options():
    result = audit.audit(numpy_bank.softmax_twice, d_model=9, experts=5, k=3)
    assert result.errata == [3]
    assert len(result.faults[0].wanted.strip("[]").split()) == 5


def test_names_that_are_not_known_want_an_adapter():
    with pytest.raises(InputError, match="adapter"):
        audit.audit(lambda x, w, phase: x)


@pytest.mark.seconds
def test_the_command_line(tmp_path, capsys):
    page = tmp_path / "audit.html"
    assert (
        cli.main(["audit", f"{BANK}:one_renormalised", "--json", "--html", str(page), *PATIENT])
        == 1
    )
    records = json.loads(capsys.readouterr().out)
    assert set(records[0]) == {"check", "verdict", "erratum", "evidence", "link"}
    assert {r["verdict"] for r in records} <= {"right", "wrong", "convention", "unknown"}
    assert {r["erratum"] for r in records if r["verdict"] == "wrong"} == {4}
    assert all(r["link"].endswith("errata.html#errata-4") for r in records if r["erratum"] == 4)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "gradient to the gate" in text
    assert cli.main(["audit", "moe_np.routing.top_k", "--k", "3", *PATIENT]) == 0
    table = capsys.readouterr().out
    assert "equal to top_k" in table and "0 wrong" in table
    assert cli.main(["audit", "nowhere.py:f"]) == 2
    assert dict(map(audit_cli.option, ["p=0.5", "of=pair"])) == {"p": 0.5, "of": "pair"}
    with pytest.raises(InputError, match="NAME=VALUE"):
        audit_cli.option("p")


def test_a_page_escapes_what_the_code_says():
    finding = audit.Finding("check", "wrong", "a < b", None, got="<script>alert(1)</script>")
    result = audit.Report("<b>", "numpy", [finding])
    assert "<script>" not in report.page(result) and "&lt;script&gt;" in report.page(result)


@pytest.mark.parametrize(
    "answer",
    [None, "top-2", (), np.ones((3, 3, 3)), np.ones((7, 4)) * 1j, np.array([object()] * 7)],
)
def test_a_result_without_a_form_is_one_error(answer):
    def router(x, w):
        return answer

    with pytest.raises(InputError, match=r"router: 7 tokens, .* neither weights nor an output"):
        audit.audit(router)


def test_the_audit_goes_on_where_answers_turn_into_nonsense():
    calls = []

    def router(x, w):
        calls.append(len(x))
        weights = numpy_bank.softmax(x @ w)
        return None if len(calls) > 3 else weights

    result = audit.audit(router, time_limit=20)
    assert len({finding.check for finding in result.findings}) > 20
    assert len(calls) > 20 and result.faults


def test_a_framework_that_is_not_installed_is_one_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    wanted = "torch: the code under audit needs it, and it is not installed"
    with pytest.raises(InputError, match=wanted):
        audit.audit(numpy_bank.softmax_twice, framework="torch")
