"""``doctor`` on a terminal of 80 and of 120 columns, as snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from qctl.ops.doctor.findings import CheckResult, Diagnosis, Examined, Finding, Subject
from qctl.output.doctor import MAX_SHOWN, diagnosis_text
from tests.labs.screens import compare

SCREENS = Path(__file__).parent / "screens"
LONG = "notifications-for-customers-in-the-european-union-region-1"


def finding(severity: str, name: str, what: str, check: str, **more: object) -> Finding:
    kind = "process" if ":" in name else "redis" if not name else "queue"
    return Finding(severity=severity, subject=Subject(kind, name), what=what, check=check, **more)  # type: ignore[arg-type]


FINDINGS = (
    finding(
        "error", LONG, "3 jobs have stalled, and no worker checks for stalled jobs", "stalled-jobs",
        evidence={"count": 3, "stalled": ["1", "2", "order:4711"]},
        commands=(f"qctl jobs retry-stalled {LONG}",),
    ),
    finding(
        "warning", "pm2:worker", "it is killed 1.6 s after SIGINT, and one in twenty 'welcome' "
        "jobs of images runs 3.0 s or longer", "kill-timeout",
        remedy="set kill_timeout to 5000 ms or more in the app's ecosystem file, and let it close "
        "its workers on that signal",
        commands=("qctl restart pm2:worker",),
    ),
    finding(
        "warning", "", "neither append-only file nor snapshots: a restart of Redis loses all jobs",
        "persistence", remedy="turn one on, also in redis.conf",
        commands=("redis-cli config set appendonly yes",),
    ),
    *(
        finding("info", f"svc-{number:02}", "its worker has no name", "unnamed-workers")
        for number in range(MAX_SHOWN + 30)
    ),
)  # fmt: skip
CHECKS = (
    CheckResult("stalled-jobs", "found"),
    CheckResult("kill-timeout", "found"),
    CheckResult("growing-backlog", "ok", "unknown for 2 queues whose events reach back too little"),
    CheckResult("cluster-prefix", "skipped", "this Redis is not a cluster"),
    CheckResult("memory", "failed"),
)
DIAGNOSES = {
    "problems": Diagnosis(FINDINGS, CHECKS, Examined(42, 42, 1)),
    "nothing-found": Diagnosis((), CHECKS[2:4], Examined(1, 2, 1)),
    "unknown-workers": Diagnosis(FINDINGS[2:3], CHECKS[2:], Examined(1, None, None)),
}


@pytest.mark.parametrize("name", DIAGNOSES)
def test_doctor(name: str) -> None:
    compare(
        SCREENS / f"doctor-{name}.txt",
        lambda width, _, colour: diagnosis_text(
            DIAGNOSES[name], width=width, colour=colour
        ).splitlines(),
    )
