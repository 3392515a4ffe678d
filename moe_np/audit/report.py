"""The report of an audit: a table, JSON, a page of HTML."""

import html
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from moe_np.audit.findings import TITLES, Finding, link


class Report(NamedTuple):
    """What an audit found. `faults` is what an exit status of 1 stands for."""

    name: str
    framework: str
    findings: list[Finding]

    @property
    def faults(self) -> list[Finding]:
        """The findings with the verdict `wrong`."""
        return [finding for finding in self.findings if finding.verdict == "wrong"]

    @property
    def errata(self) -> list[int]:
        """The numbers of the errata that are wrong here."""
        return sorted({f.erratum for f in self.faults if f.erratum is not None})

    def records(self) -> list[dict[str, Any]]:
        """The findings as a list of objects for JSON."""
        return [finding.record() for finding in self.findings]

    def json(self) -> str:
        """The records as text."""
        return json.dumps(self.records(), indent=1, ensure_ascii=False)

    def page(self) -> str:
        """The report as a page of HTML."""
        return page(self)

    def __str__(self) -> str:
        return table(self)


ORDER = ("wrong", "convention", "right", "unknown")


def table(report: Report) -> str:
    """A line per finding, what is wrong first; evidence below what is wrong."""
    lines = [f"{report.name} ({report.framework or 'not loaded'})", ""]
    for finding in _sorted(report):
        number = "" if finding.erratum is None else f"errata {finding.erratum}"
        lines.append(f"{finding.verdict:10}  {number:9}  {finding.check}: {finding.text}")
        if finding.verdict in ("wrong", "convention"):
            for name in ("input", "wanted", "got"):
                value = getattr(finding, name)
                if value:
                    lines.append(f"{'':23}  {name:6}  {value}")
    lines += ["", summary(report)]
    return "\n".join(lines)


def _sorted(report) -> Iterator[Finding]:
    return iter(sorted(report.findings, key=lambda finding: ORDER.index(finding.verdict)))


def summary(report: Report) -> str:
    """One line: how many findings of each verdict, and the errata by name."""
    counts = {v: sum(f.verdict == v for f in report.findings) for v in ORDER}
    line = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    named = "; ".join(f"{n} ({TITLES[n]})" for n in report.errata)
    return f"{line}. Errata: {named}" if named else line


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top;
padding: .4em .8em; border-bottom: 1px solid #ccc } .wrong { color: #a11; font-weight: 600 }
.convention { color: #06c } .unknown { color: #666 } code { font-size: 85% }
"""


def page(report: Report) -> str:
    """A page of HTML without scripts and without anything from elsewhere."""
    rows = []
    for finding in _sorted(report):
        evidence = "<br>".join(
            f"{name}: <code>{html.escape(getattr(finding, name))}</code>"
            for name in ("input", "wanted", "got")
            if getattr(finding, name)
        )
        number = ""
        if finding.erratum is not None:
            title = html.escape(TITLES[finding.erratum])
            number = f'<a href="{link(finding.erratum)}" title="{title}">{finding.erratum}</a>'
        cells = (
            f'<td class="{finding.verdict}">{finding.verdict}</td>',
            f"<td>{html.escape(finding.check)}</td>",
            f"<td>{html.escape(finding.text)}</td><td>{number}</td><td>{evidence}</td>",
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    name = html.escape(report.name)
    head = (
        "<tr><th>verdict</th><th>check</th><th>what is so</th><th>errata</th><th>evidence</th></tr>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Audit of {name}</title>\n'
        f"<style>{STYLE}</style>\n<h1>Audit of {name}</h1>\n<p>{html.escape(summary(report))}</p>\n"
        f"<table>{head}\n" + "\n".join(rows) + "</table></html>\n"
    )
