"""What the audit reports: a list of findings, each a check with a verdict and its evidence."""

from typing import Any, Literal, NamedTuple

import numpy as np

Verdict = Literal["right", "wrong", "convention", "unknown"]
SITE = "https://moe-np.github.io/moe_np/lessons/errata.html"

TITLES = {
    1: "the load estimator of noisy top-k",
    2: "the gradient through the threshold of the load estimator",
    3: "top-k weights, renormalised or not",
    4: "one expert with renormalised weight",
    5: "squared coefficient of variation",
    6: "the balance loss of Switch",
    7: "the router z-loss",
    8: "dropped tokens contribute 0",
    9: "capacity is rounded up and at least 1",
    10: "noise: none in evaluation, none outside the router",
    11: "ties",
    12: "duplicates in a scatter",
    13: "routing that depends on other tokens",
    16: "loss and gradient share one scale",
    17: "balance losses are returned and added",
    19: "a balancing bias enters the selection only",
    20: "infinities are allowed in masks",
    24: "rows in which all is masked",
    27: "the balance loss of a model is a term per layer",
    32: "jitter in place; capacity that never drops",
}


def link(erratum: int) -> str:
    """The address of an item of the errata."""
    return f"{SITE}#errata-{erratum}"


class Finding(NamedTuple):
    """The result of one check. `erratum` is the number of an item of the errata, or None."""

    check: str
    verdict: Verdict
    text: str  # one sentence: what is so
    erratum: int | None = None
    input: str = ""
    wanted: str = ""
    got: str = ""

    def record(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        evidence = {
            "text": self.text,
            "input": self.input,
            "wanted": self.wanted,
            "got": self.got,
        }
        return {
            "check": self.check,
            "verdict": self.verdict,
            "erratum": self.erratum,
            "evidence": evidence,
            "link": None if self.erratum is None else link(self.erratum),
        }


def finding_of(record: dict[str, Any]) -> Finding:
    """The Finding of a record."""
    e = record["evidence"]
    return Finding(
        record["check"],
        record["verdict"],
        e["text"],
        record["erratum"],
        e["input"],
        e["wanted"],
        e["got"],
    )


def show(value: Any, limit: int = 90) -> str:
    """A short text of a number or of an array, for evidence."""
    if value is None:
        return "nothing"
    if isinstance(value, (float, int)):
        return f"{value:.6g}"
    with np.printoptions(precision=4, suppress=True, threshold=24, edgeitems=4, linewidth=200):
        text = " ".join(str(np.asarray(value)).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def right(check: str, text: str, **evidence: Any) -> Finding:
    """The code does what the reference does."""
    return _finding(check, "right", text, None, evidence)


def fault(check: str, text: str, erratum: int | None = None, **evidence: Any) -> Finding:
    """The code is wrong, by the item `erratum` of the errata if that is one."""
    return _finding(check, "wrong", text, erratum, evidence)


def convention(check: str, text: str, erratum: int | None = None, **evidence: Any) -> Finding:
    """The code differs in a way that is a choice, which somebody has to know."""
    return _finding(check, "convention", text, erratum, evidence)


def unknown(check: str, text: str, **evidence: Any) -> Finding:
    """The audit cannot tell, and why."""
    return _finding(check, "unknown", text, None, evidence)


def _finding(check, verdict, text, erratum, evidence):
    texts = {k: v if isinstance(v, str) else show(v) for k, v in evidence.items()}
    return Finding(check, verdict, text, erratum, **texts)
