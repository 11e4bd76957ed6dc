"""Every command that writes takes ``--yes``, so that a script can always give it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from qctl.cli import program
from qctl.connection.address import Client
from tests.labs.build import Q, put
from tests.labs.bulk import fill
from tests.labs.cli import qctl, run

# Commands that only read. A new command is in this list, or takes --yes. `top` asks in dialogs, and
# `demo` writes only to its own Redis.
READING = {
    *("status", "queues", "workers", "impact", "doctor", "events", "wait", "metrics"),
    *("jobs list", "jobs show", "jobs logs", "schedules list", "schedules show"),
    *("worker list", "worker logs", "config view", "config path", "contexts", "completion"),
    *("top", "demo"),
}


def leaves() -> Iterator[tuple[str, set[str]]]:
    """Every command, and its flags."""
    for name in program.COMMANDS:
        command: Any = program.load_command(name)
        group = isinstance(command, typer.core.TyperGroup)
        for child in command.commands.values() if group else [command]:
            path = f"{name} {child.name}" if group else name
            yield path, {flag for parameter in child.params for flag in parameter.opts}


@pytest.mark.parametrize(("path", "flags"), [*leaves()], ids=lambda value: str(value)[:20])
def test_every_command_that_writes_takes_yes(path: str, flags: set[str]) -> None:
    assert ("--yes" in flags) == (path not in READING)
    if "--dry-run" in flags:
        assert path not in READING


# `worker run` and `start` are left out: they would start processes.
ARGUMENTS = {
    "jobs retry-stalled": ("q",),
    "jobs retry": ("q", "1"),
    "jobs retry-failed": ("q",),
    "jobs promote": ("q", "d"),
    "jobs remove": ("q", "1"),
    "jobs add": ("q", "mail"),
    "pause": ("q",),
    "resume": ("q",),
    "drain": ("q",),
    "restart": ("pm2:worker",),
    "schedules remove": ("q", "s"),
    "schedules run": ("q", "s"),
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
    flags = dict(leaves())[path]
    dry_run = ("--dry-run",) if "--dry-run" in flags else ()
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
