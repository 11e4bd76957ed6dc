"""Loads the Lua transitions in ``lua/`` and runs them.

In their comments, "wire format 5.8" is a section of docs/wire-format.md, and P1-P18 are primitives
described there. ``base`` is a queue's key prefix with its last colon, such as ``bull:q:``.

A line ``--@include name`` stands for ``lua/lib/name.lua``. A part that is included several times is
there once.

A script names all keys that it uses, or its first or last keys are ``QueueKeys.whole``: a cluster
that moves the queue must never run it on a part of the queue.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.replies import checked

_INCLUDE = "--@include "


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A transition with its keys and arguments."""

    name: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...]


@cache
def source(name: str) -> str:
    """The text of ``lua/<name>.lua`` with its includes in place."""
    folder = files("qctl.wire") / "lua"
    lines: list[str] = []
    included: set[str] = set()

    def read(file: str) -> None:
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            if not line.startswith(_INCLUDE):
                lines.append(line)
                continue
            part = f"lib/{line.removeprefix(_INCLUDE).strip()}.lua"
            if part not in included:
                included.add(part)
                read(part)

    read(f"{name}.lua")
    return "\n".join(lines) + "\n"


@cache
def sha(name: str) -> str:
    """The hash by which Redis knows a script that it has run before."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def run(client: Client, name: str, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
    """Run a transition. Its text is sent only when Redis does not know it yet.

    Raises:
        ReplyError: the script failed, or the user may not run scripts.
    """
    try:
        return client.call("EVALSHA", sha(name), len(keys), *keys, *args)
    except ReplyError as error:
        if error.code != "NOSCRIPT":
            raise
    return client.call("EVAL", source(name), len(keys), *keys, *args)


def run_all(client: Client, calls: Sequence[ScriptCall]) -> list[Any]:
    """Run transitions in as few round trips as possible and return their replies.

    Raises:
        ReplyError: one of them failed; the others may have run.
    """
    if not calls:
        return []
    # The first call loads the script where Redis does not know it.
    answers = [run_call(client, calls[0])]
    commands = [
        ("EVALSHA", sha(call.name), len(call.keys), *call.keys, *call.args) for call in calls[1:]
    ]
    replies = client.pipeline(commands)
    for call, reply in zip(calls[1:], replies, strict=True):
        is_unknown = isinstance(reply, ReplyError) and reply.code == "NOSCRIPT"
        answers.append(run_call(client, call) if is_unknown else checked(reply))
    return answers


def run_call(client: Client, call: ScriptCall) -> Any:
    """``run`` of a prepared call."""
    return run(client, call.name, call.keys, call.args)


def run_timed(
    client: Client, name: str, keys: Sequence[str], args: Sequence[Arg] = ()
) -> tuple[Any, float]:
    """Run a transition whose reply begins with the microseconds that it took.

    Returns:
        The rest of its reply, and how many seconds Redis worked; the duration of the whole call
        where Redis' clock stands still during scripts.
    """
    began = time.monotonic()
    micros, answer = run(client, name, keys, args)
    # 0 or less: the clock stands still during scripts, or was set back.
    worked_us = int(micros or 0)
    return answer, worked_us / 1e6 if worked_us > 0 else time.monotonic() - began
