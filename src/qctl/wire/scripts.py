"""Loads the Lua transitions beside this file and runs them.

A script or a part may hold lines ``--@include name``, which are replaced by ``lua/lib/name.lua``; a
part that is included twice is there once.

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
    """A transition with its keys and arguments, ready to be sent over any connection."""

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
    """The name under which Redis knows the script once it has seen it."""
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
    """Run transitions in as few round trips as it takes; their answers.

    Raises:
        ReplyError: one of them failed; the others may have run.
    """
    if not calls:
        return []
    # The first brings the script along if need be.
    answers = [run_call(client, calls[0])]
    commands = [
        ("EVALSHA", sha(call.name), len(call.keys), *call.keys, *call.args) for call in calls[1:]
    ]
    replies = client.pipeline(commands) if commands else []
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
    """The same for a transition that answers how long it took, too.

    Returns:
        Its answer, and for how many seconds Redis worked; where Redis cannot tell that, how long
        the call took with its way there and back.
    """
    began = time.monotonic()
    micros, answer = run(client, name, keys, args)
    # None at all: the clock stands still in scripts there, or was set back.
    worked_us = int(micros or 0)
    return answer, worked_us / 1e6 if worked_us > 0 else time.monotonic() - began
