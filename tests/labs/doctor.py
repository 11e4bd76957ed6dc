"""The doctor on what a test has built, all checks or one."""

from __future__ import annotations

import os
from pathlib import Path

from qctl.config.settings import Settings
from qctl.connection.address import Client, parse_url
from qctl.manage.protocol import ManagedProcess
from qctl.ops.doctor.findings import CheckResult, Diagnosis, Finding
from qctl.ops.doctor.run import examine

SETTINGS = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))


def diagnose(
    client: Client,
    url: str = "redis://localhost/0",
    *names: str,
    settings: Settings = SETTINGS,
    full: bool = False,
) -> Diagnosis:
    """All checks, without the pauses between two readings."""
    return examine(client, parse_url(url), settings, names, full=full, sleep=lambda _: None)


def found(client: Client, check: str, *names: str, full: bool = False) -> list[Finding]:
    """The findings of one check, which must have run."""
    diagnosis = diagnose(client, "redis://localhost/0", *names, full=full)
    assert result(diagnosis, check).status in {"ok", "found"}, result(diagnosis, check)
    return of(diagnosis, check)


def of(diagnosis: Diagnosis, check: str) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.check == check]


def result(diagnosis: Diagnosis, check: str) -> CheckResult:
    return next(each for each in diagnosis.checks if each.check == check)


APP = ManagedProcess(
    target="pm2:app",
    key="0",
    name="app",
    namespace="default",
    status="online",
    pid=os.getpid(),
    started_at_ms=1_700_000_000_000,
    restarts=1,
    mode="fork",
    stop_signal="SIGINT",
    kill_timeout_ms=1600,
    ready_timeout_ms=0,
    cpu_percent=None,
    rss_bytes=None,
    script="/srv/app.js",
    cwd="/srv",
)
