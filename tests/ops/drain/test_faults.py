"""A drain whose own commands fail half way, or whose replies are lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psutil
import pytest

from qctl.connection.address import Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import ReplyError, UnreachableError
from qctl.ops.drain import resume as resume_module
from qctl.ops.drain import run as module
from qctl.wire import scripts
from qctl.wire.write.pausing import pause
from tests.labs.build import Q, events, holder, is_paused, put
from tests.labs.drain_in_process import run_drain
from tests.labs.drains import cmdline, is_alive
from tests.labs.servers import limited_user, wait_until


class Lossy(ForwardingClient):
    """Redis does what it is sent, but the first reply to each of these scripts is lost."""

    def __init__(self, inner: Client, *names: str) -> None:
        super().__init__(inner)
        self._lose = {scripts.sha(name) for name in names}

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        reply = super().call(*command, timeout_s=timeout_s)
        if command[0] == "EVALSHA" and command[1] in self._lose:
            self._lose.discard(str(command[1]))
            raise UnreachableError("the connection was cut")
        return reply


@pytest.mark.parametrize("lost", ["pause", "resume", "disown"])
def test_a_reply_that_is_lost(client: Client, redis_url: str, lost: str) -> None:
    """The command is repeated, and what it finds is its own work."""
    put(client, "1")
    report = run_drain(Lossy(client, lost), client, redis_url, stop=True)
    assert (report.outcome, report.exit_status, report.resumed) == ("aborted", 130, True)
    assert report.notes == ()
    assert not is_paused(client)
    assert client.call("KEYS", "qctl:[^d]*") == []
    assert [e["event"] for e in events(client)] == ["paused", "resumed"]


@pytest.mark.parametrize("lost", ["pause", "resume"])
def test_a_reply_that_is_lost_with_no_time_to_repeat(
    client: Client, redis_url: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_S", 0.0)
    put(client, "1", "active", lock="w:1")
    report = run_drain(Lossy(client, lost), client, redis_url, stop=True)
    assert report.exit_status == (6 if lost == "pause" else 130)
    wait_until(lambda: not is_paused(client), "the queue to be resumed")
    wait_until(lambda: client.call("KEYS", "qctl:[^d]*") == [], "qctl's keys to go")


class WatchdogDies(ForwardingClient):
    """The watchdog is killed before the first resume, which Redis may refuse.

    Attributes:
        note: the pause note at this time.
    """

    def __init__(self, inner: Client, refusal: str = "") -> None:
        super().__init__(inner)
        self._refusal = refusal
        self.note = ""

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        if command[0] == "EVALSHA" and command[1] == scripts.sha("resume") and not self.note:
            self.note = str(super().call("GET", Q.pause_note))
            for child in psutil.Process().children():
                if "qctl.ops.drain.watchdog" in " ".join(cmdline(child)):
                    # Not waited for, because qctl has to notice it.
                    child.kill()
                    wait_until(lambda pid=child.pid: not is_alive(pid), "the watchdog to die")
            if self._refusal:
                raise ReplyError(self._refusal)
        return super().call(*command, timeout_s=timeout_s)


@pytest.mark.parametrize("refusal", ["OOM x", "NOPERM x"])
def test_the_watchdog_is_dead_when_it_has_to_take_over(
    client: Client, redis_url: str, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_S", 0.0)
    put(client, "1", "active", lock="w:1")
    report = run_drain(WatchdogDies(client, refusal), client, redis_url, stop=True)
    note = next(note for note in report.notes if "may still be paused" in note)
    assert "the watchdog (pid " in note
    assert ("try: qctl resume q" in note) == (refusal == "NOPERM x")
    wait_until(lambda: not is_paused(client), "the queue to be resumed")
    wait_until(lambda: client.call("KEYS", "qctl:[^d]*") == [], "qctl's keys to go")


def test_the_watchdog_is_dead_when_redis_forgets_the_resume(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_module, "can_lose_writes", lambda _: True)
    put(client, "1", "active", lock="w:1")
    dies = WatchdogDies(client)
    assert run_drain(dies, client, redis_url, stop=True).resumed is True
    # As from an append-only file whose end was not on the disk.
    client.call("HSET", Q("meta"), "paused", "1")
    client.call("SET", Q.pause_note, dies.note)
    client.call("XTRIM", Q("events"), "MAXLEN", 0)
    wait_until(lambda: not is_paused(client), "the queue to be resumed again")
    wait_until(lambda: client.call("KEYS", "qctl:[^d]*") == [], "qctl's keys to go")


@pytest.mark.parametrize("right", ["del", "xadd", "hset"])
def test_a_pause_that_fails_half_way(client: Client, redis_url: str, right: str) -> None:
    """Its rights are checked before; here they are taken away after that."""
    put(client, "1")
    with limited_user(client, redis_url, "~*", "+@all", f"-{right}") as (url, limited):
        report = run_drain(limited, client, url)
    wait_until(lambda: not is_paused(client), "the queue to be resumed")
    assert (report.outcome, report.exit_status) == ("aborted", 1)
    assert "may not" in (report.error or "")


def test_a_right_that_is_given_back(client: Client, redis_url: str) -> None:
    put(client, "1", "active", lock="w:1")
    with limited_user(client, redis_url, "~*", "+@all", "-hdel") as (url, limited):
        report = run_drain(limited, client, url, stop=True)
        assert (report.outcome, report.resumed) == ("aborted", False)
        (note,) = report.notes
        assert note.endswith("until Redis no longer refuses; try: qctl resume q")
        assert is_paused(client)
        client.call("ACL", "SETUSER", "limited", "+hdel")
        wait_until(lambda: not is_paused(client), "the watchdog to resume")
        wait_until(lambda: client.call("KEYS", "qctl:[^d]*") == [], "qctl's keys to go")


@pytest.mark.parametrize("verb", ["drain", "restart"])
def test_a_pause_that_was_left_behind_is_taken_over(
    client: Client, redis_url: str, verb: str
) -> None:
    put(client, "1")
    pause(client, Q, holder("gone", verb))
    report = run_drain(client, client, redis_url, stop=True)
    assert report.resumed is True
    (note,) = report.notes
    assert note.startswith(f"q had been left paused by qctl {verb} of ada@host (pid 42)")
    assert not is_paused(client)


@pytest.mark.parametrize("verb", ["pause", "drain --keep-paused", None])
def test_a_pause_that_is_meant_stays(client: Client, redis_url: str, verb: str | None) -> None:
    put(client, "1")
    if verb is None:
        client.call("HSET", Q("meta"), "paused", "1")
    else:
        pause(client, Q, holder("them", verb))
    note = client.call("GET", Q.pause_note)
    report = run_drain(client, client, redis_url, stop=True)
    assert report.resumed is False
    (told,) = report.notes
    assert "stays paused" in told
    assert "qctl resume q" in told
    assert is_paused(client)
    assert client.call("GET", Q.pause_note) == note


def test_a_pause_of_an_app_is_not_taken_for_one_that_was_left_behind(
    client: Client, redis_url: str
) -> None:
    """BullMQ's own resume and pause know nothing of the note, which stays."""
    put(client, "1")
    pause(client, Q, replace(holder("gone", "drain"), at_ms=0))
    client.call("XADD", Q("events"), "*", "event", "resumed")
    client.call("XADD", Q("events"), "*", "event", "paused")
    report = run_drain(client, client, redis_url, stop=True)
    assert report.resumed is False
    assert is_paused(client)
