"""Loads and runs the Lua scripts in ``lua/``, most of which move jobs from state to state.

In the scripts' comments, "wire format 5.8" is a section of docs/wire-format.md, and P1-P18 are
steps described there. ``base`` is a queue's key prefix with its last colon, such as ``bull:q:``.

A line ``--@include name`` inserts ``lua/lib/name.lua``, but only once per script.

The ``KEYS`` of a script are all keys that the script uses, or contain ``QueueKeys.whole``. So no
script runs on only a part of a queue while a cluster moves the queue to another node.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.replies import checked

_INCLUDE = "--@include "
# Not through importlib.resources, whose import takes 10 ms.
_FOLDER = Path(__file__).with_name("lua")


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A script with its keys and arguments."""

    name: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...]


@cache
def source(name: str) -> str:
    """The text of ``lua/<name>.lua`` with its includes in place."""
    lines: list[str] = []
    included: set[str] = set()

    def read(file: str) -> None:
        for line in (_FOLDER / file).read_text(encoding="utf-8").splitlines():
            directive = line.strip()
            if not directive.startswith(_INCLUDE):
                lines.append(line)
                continue
            part = f"lib/{directive.removeprefix(_INCLUDE).strip()}.lua"
            if part not in included:
                included.add(part)
                read(part)

    read(f"{name}.lua")
    return "\n".join(lines) + "\n"


@cache
def sha(name: str) -> str:
    """The SHA-1 hash of a script, by which ``EVALSHA`` names it."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def run(client: Client, name: str, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
    """Run a script. Its text is sent only if Redis does not have it yet.

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
    """Run scripts in as few round trips as possible and return their replies.

    Raises:
        ReplyError: a script failed; the other scripts may have run.
    """
    if not calls:
        return []
    # Usually all calls name the same script, so the first call loads it if Redis does not have it.
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
    """Run a prepared call; see ``run``."""
    return run(client, call.name, call.keys, call.args)


def run_timed(
    client: Client, name: str, keys: Sequence[str], args: Sequence[Arg] = ()
) -> tuple[Any, float]:
    """Run a script whose reply begins with its duration in microseconds.

    Return the rest of the reply, and the duration in seconds. If the script could not measure its
    duration, return that of the whole call.
    """
    began = time.monotonic()
    micros, answer = run(client, name, keys, args)
    # This is 0 or less if Redis' clock stands still during scripts, or was set back.
    worked_us = int(micros or 0)
    return answer, worked_us / 1e6 if worked_us > 0 else time.monotonic() - began
