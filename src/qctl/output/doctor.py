"""The findings of ``doctor`` as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qctl.output.console import styled
from qctl.output.text import count, listed, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.doctor.findings import CheckResult, Diagnosis, Finding

_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_INDENT = " " * 9
# How many findings of each check and severity are shown: thousands may report the same problem.
MAX_SHOWN = 10
_MIN_WIDTH = 40
# Lists in a finding's evidence. The first list that is not empty provides the examples.
_SHOWN_LISTS = ["stalled", "jobs", "ids", "lost", "parents", "schedulers", "deduplication_ids"]


def diagnosis_text(diagnosis: Diagnosis, *, width: int, colour: bool) -> str:
    """The findings in their order, remarks on checks, and a last line with counts."""
    lines: list[str] = []
    shown: dict[tuple[str, str], int] = {}
    for finding in _merged(diagnosis.findings):
        group = finding.severity, finding.check
        shown[group] = shown.get(group, 0) + 1
        if shown[group] <= MAX_SHOWN:
            lines += [*_finding(finding, width, colour), ""]
    for (severity, check), number in shown.items():
        if number > MAX_SHOWN:
            more = f"{count(number - MAX_SHOWN)} more of {check} ({severity}): --json lists all"
            lines += [more, ""]
    lines += _remarks(diagnosis.checks, width, colour)
    if left_out := diagnosis.examined.left_out:
        text = f"not examined: {listed(left_out)}, which the target serves under prefixes "
        text += "that are not selected; select these with --prefix"
        lines += [*_wrapped(text, width, "", "  "), ""]
    lines += _wrapped(_summary(diagnosis), width, "", "")
    return "".join(f"{line}\n" for line in lines)


def _merged(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings. Findings with the same text are merged into one that names all subjects.

    A finding with commands stays alone, because its commands name its subject.
    """
    groups: dict[object, list[Finding]] = {}
    for number, finding in enumerate(findings):
        kind = finding.subject.kind
        same = (finding.severity, kind, finding.what, finding.remedy)
        # Checks that failed for the same reason are one finding.
        check = "" if kind == "check" else finding.check
        alone = number if finding.commands or _examples(finding.evidence) else None
        groups.setdefault((*same, check, alone), []).append(finding)
    for first, *rest in groups.values():
        if not rest:
            yield first
            continue
        names = [each.subject.name for each in (first, *rest)]
        name = ", ".join(names) if first.subject.kind == "check" else listed(names)
        yield replace(first, subject=replace(first.subject, name=name))


def _finding(finding: Finding, width: int, colour: bool) -> Iterator[str]:
    head = finding.severity.ljust(len(_INDENT) - 1)
    first, *rest = _wrapped(visible(finding.title), width, _INDENT, _INDENT)
    yield styled(head, _STYLES[finding.severity], colour=colour) + first[len(_INDENT) - 1 :]
    yield from rest
    if examples := _examples(finding.evidence):
        yield from _wrapped(f"for example {examples}", width, _INDENT, _INDENT)
    if finding.remedy:
        yield from _wrapped(f"→ {visible(finding.remedy)}", width, _INDENT, _INDENT + "  ")
    # Commands are not wrapped, so that they can be copied.
    yield from (f"{_INDENT}  {visible(command)}" for command in finding.commands)
    if finding.subject.kind != "check":
        yield styled(f"{_INDENT}[{finding.check}]", "dim", colour=colour)


def _examples(evidence: Mapping[str, Any]) -> str:
    for name in _SHOWN_LISTS:
        found = evidence.get(name)
        if isinstance(found, list) and found:
            texts = [visible(_example(item)) for item in found]
            more = evidence.get("count", 0) > len(found)
            return ", ".join(texts) + (", …" if more else "")
    return ""


def _example(item: Any) -> str:
    return f"{item['id']} of {item['queue']}" if isinstance(item, dict) else str(item)


def _remarks(checks: Sequence[CheckResult], width: int, colour: bool) -> list[str]:
    """Remarks on checks that examined only a part of the data, and on skipped checks."""
    partial = [result for result in checks if result.status in {"ok", "found"} and result.why]
    skipped: dict[str, list[str]] = {}
    for result in checks:
        if result.status == "skipped":
            skipped.setdefault(result.why, []).append(result.check)
    texts = [f"{result.check}: {result.why}" for result in partial]
    texts += [f"{', '.join(names)}: skipped, {why}" for why, names in skipped.items()]
    lines = [line for text in texts for line in _wrapped(visible(text), width, "", "  ")]
    return [styled(line, "dim", colour=colour) for line in lines] + [""] * bool(lines)


def _summary(diagnosis: Diagnosis) -> str:
    severities = [finding.severity for finding in diagnosis.findings]
    findings = [
        counted(severities.count("error"), "error"),
        counted(severities.count("warning"), "warning"),
    ]
    if infos := severities.count("info"):
        findings.append(counted(infos, "info"))
    statuses = [result.status for result in diagnosis.checks]
    made = sum(status in {"ok", "found"} for status in statuses)
    checks = counted(made, "check")
    if failed := statuses.count("failed"):
        checks += f", {failed} failed"
    examined = diagnosis.examined
    things = [
        counted(examined.queues, "queue"),
        _counted_if_known(examined.workers, "worker"),
        _counted_if_known(examined.processes, "process", "processes"),
    ]
    found = ", ".join(findings) if severities else "nothing found"
    return f"{found}; {checks}: {', '.join(things)}"


def _counted_if_known(number: int | None, noun: str, plural: str = "") -> str:
    return f"unknown {plural or noun + 's'}" if number is None else counted(number, noun, plural)


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, _MIN_WIDTH),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
