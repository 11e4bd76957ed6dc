"""Passwords and the apps' environment stay hidden while a drain runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.labs.drains import SECRET, Lab, Running, open_lab, qctl_command
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer

PASSWORD = "open-sesame-42"  # noqa: S105 - a test value
DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


@pytest.fixture
def locked_lab(
    lab_pm2: Pm2, start_redis: Callable[..., RedisServer], tmp_path: Path
) -> Iterator[Lab]:
    """A Redis in which the apps need no password, and qctl does."""
    rules = ("ops", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    server = start_redis("--user", *rules)
    with open_lab(lab_pm2, server, tmp_path, server.url_for("ops", PASSWORD)) as lab:
        yield lab


def command_lines() -> str:
    """Those of all processes, but for the server's own, to which this test gave the password."""
    lines = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words and "redis-server" not in words[0]:
            lines.append(" ".join(words))
    return "\n".join(lines)


def test_no_secret_shows_anywhere(locked_lab: Lab) -> None:
    lab = locked_lab
    lab.watch = "1s"
    lab.app()
    lab.prove(lab.add(1))
    shown = [lab.qctl("status", "--json"), lab.qctl(*DRAIN, "--dry-run"), lab.qctl("workers")]
    added = [*lab.hold(), *lab.add(10)]
    # Not a fork, which has no command line of its own.
    words = qctl_command(*DRAIN, "--debug", "--output", "ndjson", quick=False)
    with contextlib.closing(Running.program(words, lab.env, lab.folder)) as drain:
        drain.await_step("waiting")
        running = command_lines()
        assert "-m qctl drain q" in running
        assert "qctl.ops.drain.watchdog" in running
        assert PASSWORD not in running
        assert SECRET not in running
        shown += [lab.qctl(*DRAIN), lab.qctl("resume", "q")]
        lab.release()
        shown.append(drain.finish())
    assert shown[-1].code == 0, shown[-1].err
    kept = "".join(str(lab.client.call("GET", key)) for key in lab.traces())
    lab.prove(added)

    # Wrong passwords are secrets too.
    wrong = lab.server.url_for("ops", PASSWORD + "x")
    failing = lab.qctl(*DRAIN, "--debug", env={"QCTL_REDIS_URL": wrong})
    assert failing.code == 6
    lab.server.stop()
    away = lab.qctl(*DRAIN, "--debug")
    assert away.code == 6
    lab.bring_redis_back()
    for done in [*shown, failing, away]:
        assert PASSWORD not in done.out + done.err
    assert PASSWORD not in kept
