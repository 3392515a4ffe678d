"""The report on Jordan and Jacobs (1994): published numbers, and verdicts that follow the runs."""

import json

from moe_np.experiments import jordan1994
from moe_np.experiments.jordan1994.report import remarks


def changed(result, change):
    """A copy of the result with other runs, and its summary made again."""
    systems = json.loads(json.dumps(result["systems"]))
    change(systems)
    summary = {name: jordan1994.summarise(runs) for name, runs in systems.items()}
    return {**result, "systems": systems, "summary": summary}


def test_it_has_the_published_numbers_and_says_what_is_no_evidence(result):
    text = jordan1994.report(result)
    for error, epochs in {**jordan1994.PAPER["table1"], **jordan1994.PAPER["table2"]}.values():
        assert f"{error:.2f}" in text or error == 0.16, "MARS is left out"
        assert epochs is None or f"| {epochs:,} |" in text
    assert text.count("surrogate") >= 2 and "that row is no evidence" in text
    assert "**Failures**" in text
    assert "the paper's: λ begins at 0.99, and every 1,000 cases its distance to 1" in text
    assert "60 epochs of Algorithm 1 take" in text and "after 2 passes" not in text


def test_failures_are_counted_and_said(result):
    def fail(systems):
        for run in systems["backprop"]:
            run.update(failed=True)

    failed = changed(result, fail)
    assert failed["summary"]["backprop"]["failures"] == 2
    assert "backprop 2" in "\n".join(remarks(failed))


def test_the_verdict_on_em_follows_the_numbers(result):
    """Slow EM runs are said to be behind."""

    def slow(systems):
        for name, seconds in (("HME, Algorithm 1", 9.0), ("backprop", 1.0)):
            for run in systems[name]:
                run.update(errors=[0.1] * len(run["epochs"]), error=0.1)
                run["timing"]["seconds"] = [seconds] * len(run["epochs"])
                run["errors"][0] = 0.9

    def never(systems):
        slow(systems)
        for run in systems["backprop"]:
            run.update(errors=[0.9] * len(run["epochs"]))

    assert "by the clock it is behind" in "\n".join(remarks(changed(result, slow)))
    assert "backprop never came" in "\n".join(remarks(changed(result, never)))


def test_a_report_of_some_systems_leaves_out_what_needs_the_others(result):
    systems = ("linear", "HME, Algorithm 1")
    some = {k: {s: result[k][s] for s in systems} for k in ("systems", "summary")}
    text = jordan1994.report({**result, **some})
    assert "in the paper HME, Algorithm 1 < linear." in text
    assert "Passes and seconds" not in text and "60 epochs" not in text and "On line" not in text
