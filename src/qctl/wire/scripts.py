"""Loads the Lua transitions beside this file and runs them.

A script may hold lines ``--@include name``, which are replaced by ``lua/lib/name.lua``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from qctl.connect import Arg, Client
from qctl.errors import ReplyError

_INCLUDE = "--@include "


@cache
def source(name: str) -> str:
    """The text of ``lua/<name>.lua`` with its includes in place."""
    folder = files("qctl.wire") / "lua"
    lines = []
    for line in (folder / f"{name}.lua").read_text(encoding="utf-8").splitlines():
        if line.startswith(_INCLUDE):
            part = folder / "lib" / f"{line.removeprefix(_INCLUDE).strip()}.lua"
            lines += part.read_text(encoding="utf-8").splitlines()
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


@cache
def _sha(name: str) -> str:
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def run(client: Client, name: str, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
    """Run a transition. Its text is sent only when Redis does not know it yet.

    Raises:
        ReplyError: the script failed, or the user may not run scripts.
    """
    try:
        return client.call("EVALSHA", _sha(name), len(keys), *keys, *args)
    except ReplyError as error:
        if error.code != "NOSCRIPT":
            raise
    return client.call("EVAL", source(name), len(keys), *keys, *args)
