"""The results of checks: findings, how much was examined, or why a check failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qctl.errors import FailedError, ReplyError

if TYPE_CHECKING:
    from qctl.ops.queues.advice import Note
    from qctl.wire.read.server import ServerFacts

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
# The most ids or names that a finding shows.
MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding is about.

    Args:
        name: the name of the queue, process or check. For ``redis``: the master's ``host:port``,
            or "" if there is only one master.
    """

    kind: Literal["queue", "process", "redis", "check"]
    name: str


def severity_of(note: Note) -> Severity:
    """The severity of a problem that `qctl status` reports, too; a warning if it is uncertain."""
    if note.severity is None or note.severity == "unknown":
        return "warning"
    return note.severity


def redis(server: ServerFacts) -> Subject:
    """The subject of a finding about one Redis master."""
    return Subject("redis", "" if server.node is None else "{}:{}".format(*server.node))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem.

    Args:
        severity: ``error`` (jobs are lost, stuck or in danger now), ``warning`` (the next restart
            or another ordinary event endangers jobs, or a check failed) or ``info``.
        what: the problem, in one clause without a full stop.
        check: name of the check that found the problem, as in docs/doctor.md; set by ``examine``.
        evidence: figures, and a few of the ids or names that they count.
        remedy: the setting or action that fixes the problem; "" if ``commands`` are enough.
        commands: complete commands that can be typed as they are.
    """

    severity: Severity
    subject: Subject
    what: str
    check: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""
    commands: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The subject and the problem."""
        name = f"redis {self.subject.name}".rstrip() if self.subject.kind == "redis" else ""
        return f"{name or self.subject.name}: {self.what}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended.

    Args:
        status: ``ok`` (no finding), ``found`` (at least one finding), ``failed`` (the check could
            not be made) or ``skipped`` (there is nothing to check here).
        why: for ``failed`` or ``skipped``, the reason. Otherwise, remarks on how much was examined.
    """

    check: str
    status: Literal["ok", "found", "failed", "skipped"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """How many queues, workers and processes there were to examine; None if unknown.

    Args:
        left_out: the queues, each as ``NAME@PREFIX``, that the target serves under prefixes that
            are not in force. They were not examined.
    """

    queues: int
    workers: int | None
    processes: int | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The JSON of ``qctl doctor``; findings are ordered by severity."""

    findings: tuple[Finding, ...]
    checks: tuple[CheckResult, ...]
    examined: Examined

    @property
    def is_well(self) -> bool:
        """Whether all findings have the severity ``info``."""
        return all(finding.severity == "info" for finding in self.findings)


def abbreviated(names: Sequence[str]) -> str:
    """The first few names, and an ellipsis if there are more."""
    return ", ".join(names[:MAX_EXAMPLES]) + (", …" if len(names) > MAX_EXAMPLES else "")


def examples(what: str, ids: Sequence[str]) -> dict[str, Any]:
    """Evidence: the number of ids as ``count``, and the first few ids under the key ``what``."""
    return {"count": len(ids), what: list(ids[:MAX_EXAMPLES])}


class CannotCheckError(FailedError):
    """A check cannot be made: a server or manager does not answer, or denies the data."""


class NothingToCheckError(Exception):
    """There is nothing to check; the text says what is missing."""


def denied(error: ReplyError) -> CannotCheckError:
    """The error for a check that fails because Redis refuses a command."""
    return CannotCheckError(f"{error.what}: {error.message}", hint=error.hint)
