"""Every command that writes takes ``--yes``, so that a script can always give it."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from tests.labs.build import Q, put
from tests.labs.bulk import fill
from tests.labs.cli import qctl, run
from tests.labs.commands import READING, flags_of, leaves


@pytest.mark.parametrize("path", [path for path, _ in leaves()])
def test_every_command_that_writes_takes_yes(path: str) -> None:
    flags = flags_of(dict(leaves())[path])
    assert ("--yes" in flags) == (path not in READING)


# `worker run` and `start` are left out: they would start processes.
ARGUMENTS = {
    "jobs retry-stalled": ("q",),
    "jobs retry": ("q", "1"),
    "jobs retry-failed": ("q",),
    "jobs promote": ("q", "d"),
    "jobs remove": ("q", "1"),
    "jobs cancel": ("q", "1"),
    "jobs add": ("q", "mail"),
    "queues set": ("q", "--concurrency", "5"),
    "queues delete": ("q",),
    "pause": ("q",),
    "resume": ("q",),
    "drain": ("q",),
    "restart": ("pm2:worker",),
    "schedules remove": ("q", "s"),
    "schedules run": ("q", "s"),
    "schedules set": ("q", "s", "--every", "5s"),
    "schedules migrate": ("q",),
    "purge": ("q", "--state", "failed"),
    "worker stop": ("nosuch",),
    "worker restart": ("nosuch",),
}


@pytest.mark.parametrize("path", ARGUMENTS)
def test_with_yes_it_runs_without_a_question(redis_url: str, client: Client, path: str) -> None:
    fill(client, 3)
    put(client, "d", "delayed", score=4096)
    client.call("ZADD", Q("repeat"), 4_000_000_000_000, "s")
    client.call("HSET", Q("repeat:s"), "name", "mail", "every", "60000", "ic", "1")
    dry_run = ("--dry-run",) if "--dry-run" in flags_of(dict(leaves())[path]) else ()
    ran = qctl(redis_url, *path.split(), *ARGUMENTS[path], *dry_run, "--yes", "--json")
    # Whatever the command finds: --yes is no usage error.
    assert ran.code != 2, ran.err


def test_no_command_is_forgotten() -> None:
    writing = {path for path, _ in leaves()} - READING
    assert writing == {*ARGUMENTS, "worker run", "worker start"}


def test_a_command_without_a_question_does_the_same_with_yes(
    redis_url: str, client: Client
) -> None:
    fill(client, 1)
    ran = qctl(redis_url, "pause", "q", "-y")
    assert (ran.code, ran.out) == (0, "q paused\n")
    assert client.call("HGET", Q("meta"), "paused") == "1"


def test_a_reading_command_has_no_yes() -> None:
    assert run("status", "--yes").code == 2
