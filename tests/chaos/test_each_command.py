"""A whole drain with a restart, in which one command fails: each of them in turn, or some.

``QCTL_EVERY=1 pytest …`` fails each; the suite takes every sixth, beginning at random.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Arg, Client, parse_url
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import UnreachableError
from qctl.ops.drain import finish as drain_end
from qctl.ops.drain import run as module
from qctl.ops.drain.context import DrainOptions
from qctl.ops.drain.lease import Leases
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport
from qctl.ops.processes import restart
from qctl.ops.processes.targets import Connections, Target
from qctl.wire import scripts
from qctl.wire.read.clients import Workers
from qctl.wire.read.finished import read_recent_runs
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from tests.labs.build import Q, events, is_paused, put
from tests.labs.managers import FakeManager
from tests.labs.servers import wait_until

T = TypeVar("T")

EVERY = int(os.environ.get("QCTL_EVERY", "6"))
# The first takes the lease; when that fails, nothing begins.
FIRST = 2
FOR_EVER = 10**9


class Failing(ForwardingClient):
    """Fails from a command on, counted from 1.

    Args:
        at: the first that fails.
        count: how many fail.
        loses: ``reply``: Redis has done it; ``request``: it has not.
    """

    def __init__(self, inner: Client, at: int, count: int, loses: str) -> None:
        super().__init__(inner)
        self._failing = range(at, at + count)
        self._loses = loses
        self.names: list[str] = []

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        return self._send(command, lambda: self.inner.call(*command, timeout_s=timeout_s))

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        if not commands:
            # It sends nothing.
            return []
        return self._send(commands[0], lambda: self.inner.pipeline(commands))

    def _send(self, command: Sequence[Arg], send: Callable[[], T]) -> T:
        self.names.append(str(command[0]))
        fails = len(self.names) in self._failing
        if fails and self._loses == "request":
            raise UnreachableError("away")
        reply = send()
        if fails:
            raise UnreachableError("away")
        return reply


class Stage:
    """A queue with a job that lost its worker, and a process that serves it."""

    def __init__(self, client: Client, url: str, log: Path) -> None:
        self._client = client
        self._address = parse_url(url)
        self._log = log

    def drain(
        self, at: int, count: int, loses: str, timeout_s: float = 30
    ) -> tuple[Failing, DrainReport]:
        """Drain it, with these commands failing."""
        client = self._client
        client.call("FLUSHALL")
        put(client, "1", "active")
        manager = FakeManager(self._address.port, "good", self._log)
        failing = Failing(client, at, count, loses)
        (snapshot,) = read_snapshots(client, [Q])
        assert isinstance(snapshot, QueueSnapshot)
        plan = DrainPlan(
            (snapshot,),
            Target("fake:app", manager, (manager.row(),), ()),
            Connections(Workers(), {}, {}),
            read_recent_runs(client, [Q]),
        )
        settings, options = Settings(watch_s=0.0), DrainOptions(timeout_s=timeout_s)
        report = None
        try:
            for step in drain(failing, self._address, settings, plan, options):
                report = step
        finally:
            manager.end_all()
        assert isinstance(report, DrainReport)
        return failing, report

    def is_tidy(self) -> bool:
        client = self._client
        return not is_paused(client) and client.call("KEYS", "qctl:[^d]*") == []


@pytest.fixture
def stage(client: Client, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(drain_end, "FIRST_START_S", 0.0)
    monkeypatch.setattr(restart, "SETTLE_S", 0.0)
    for name in ("pause", "resume", "hold_lease", "disown", "retry_stalled", "census"):
        client.call("SCRIPT", "LOAD", scripts.source(name))
    return Stage(client, redis_url, tmp_path / "log")


@contextlib.contextmanager
def told(text: str) -> Iterator[None]:
    """An error in here is raised with this text."""
    try:
        yield
    except BaseException as error:
        error.add_note(text)
        raise


def prove(report: DrainReport, stage: Stage, client: Client) -> None:
    """It went as if nothing had failed."""
    assert (report.outcome, report.exit_status, report.error) == ("restarted", 0, None)
    assert (report.resumed, report.recovered, report.lost) == (True, 1, 0)
    # Nobody takes the job here.
    assert [note for note in report.notes if "none has started" not in note] == []
    assert stage.is_tidy()
    kinds = [event["event"] for event in events(client)]
    assert (kinds.count("paused"), kinds.count("resumed")) == (1, 1)


def test_a_command_that_fails_is_sent_again(
    stage: Stage, client: Client, chance: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody dies here, and a process each time takes long.
    monkeypatch.setattr(Leases, "_start_watchdog", lambda _: None)
    clean, report = stage.drain(FOR_EVER, 1, "reply")
    prove(report, stage, client)
    first = FIRST + chance.randrange(EVERY)
    for at in range(first, len(clean.names) + 1, EVERY):
        for loses in ("reply", "request"):
            with told(f"command {at} fails ({loses}) of {clean.names}"):
                _, report = stage.drain(at, 1, loses)
                prove(report, stage, client)


def test_redis_that_does_not_come_back_for_qctl(
    stage: Stage, client: Client, chance: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for its watchdog, which resumes; and nothing is claimed that is not known."""
    monkeypatch.setattr(module, "AWAY_S", 0.0)
    every = 2 * EVERY if EVERY > 1 else 1
    number = len(stage.drain(FOR_EVER, 1, "reply")[0].names)
    first = FIRST + chance.randrange(every)
    for at in range(first, number, every):
        with told(f"from command {at} of {number} on"):
            # An outage while it waits for jobs lasts as long as the wait may.
            failing, report = stage.drain(at, FOR_EVER, "request", timeout_s=1)
            if report.exit_status == 0:
                # What failed was the record of drains, an extra.
                assert failing.names[at - 1] not in {"EVALSHA", "XREAD", "CLIENT"}
                continue
            assert report.exit_status == 6
            if report.resumed:
                assert stage.is_tidy()
            assert (report.lost, report.interrupted) == (None, None)
            wait_until(stage.is_tidy, "the watchdog to resume")
