"""The errors for queues that do not exist. They show which queues exist, and what to type."""

from __future__ import annotations

from collections.abc import Sequence

from qctl.config.prefixes import EVERY_PREFIX, Prefixes
from qctl.connection.address import Client
from qctl.errors import NotFoundError, ReplyError
from qctl.grouping import grouped
from qctl.manage.kinds import KINDS
from qctl.ops.processes.suggest import command, quoted
from qctl.similar import similar_names
from qctl.wire.read.discovery import survey
from qctl.wire.read.info import read_upstream

# How many names a message lists.
MAX_NAMED = 10
# How long an error message may search for similar names.
_MAX_SEARCH_S = 1.0


def no_such_queue(client: Client, prefixes: Prefixes, missing: Sequence[str]) -> NotFoundError:
    """The error for names without a queue.

    The message says which other prefixes have queues with these names. If no prefix has any, it
    suggests similar names.
    """
    names = ", ".join(repr(name) for name in missing[:MAX_NAMED])
    what = f"no queue is called {names}" if len(missing) == 1 else f"no queues are called {names}"
    where = _described(prefixes)
    if len(missing) == 1 and missing[0].partition(":")[0] in KINDS:
        # BullMQ forbids a colon in a queue's name.
        return NotFoundError(
            what,
            why=f"that looks like a process; commands with the option --target accept it: "
            f"--target {quoted(missing[0])}",
            hint="name the queues that it serves, as qctl status shows them",
        )
    everywhere = Prefixes((*prefixes.patterns, *EVERY_PREFIX.patterns))
    try:
        seen = survey(client, everywhere, _MAX_SEARCH_S)
    except ReplyError:
        # This Redis user may not call SCAN.
        return NotFoundError(what, why=f"under {where}")
    elsewhere = grouped((q for q in seen.queues if q.name in missing), lambda queue: queue.name)
    for name in missing:
        if others := [queue.prefix for queue in elsewhere.get(name, ())]:
            word = "prefix" if len(others) == 1 else "prefixes"
            shown = listed([repr(prefix) for prefix in others])
            (nearest,) = similar_names(str(prefixes), others, cutoff=0.0)
            return NotFoundError(
                f"{what} under {where}",
                why=f"{name!r} exists under the {word} {shown}",
                hint=command(nearest, "status", name),
            )
    existing = [queue for queue in seen.queues if prefixes.include(queue.prefix, queue.name)]
    if not existing and seen.is_complete:
        return no_queues(client, prefixes, f"{what}: ")
    held = list(dict.fromkeys(queue.name for queue in existing))
    near = list(
        dict.fromkeys(
            match
            for name in missing[:MAX_NAMED]
            for match in similar_names(name, held, max_names=3, cutoff=0.5)
        )
    )
    if near:
        prefix = next(queue.prefix for queue in existing if queue.name == near[0])
        why = f"the nearest under {where}: {listed([repr(name) for name in near])}"
        return NotFoundError(what, why=why, hint=command(prefix, "status", near[0]))
    why = f"{where} holds: {listed([repr(name) for name in held])}"
    if not seen.is_complete:
        why = f"under {where}"
    return NotFoundError(what, why=why, hint=command(None, "queues"))


def no_queues(client: Client, prefixes: Prefixes, before: str = "") -> NotFoundError:
    """The error for prefixes without a queue. Its message begins with ``before``."""
    what = f"{before}no queue exists under {_described(prefixes)}"
    try:
        seen = survey(client, EVERY_PREFIX, _MAX_SEARCH_S)
        in_use, is_complete = list(dict.fromkeys(q.prefix for q in seen.queues)), seen.is_complete
    except ReplyError:
        in_use, is_complete = [], False
    if in_use:
        shown = listed([repr(name) for name in in_use])
        near = in_use if len(in_use) == 1 else similar_names(str(prefixes), in_use)
        return NotFoundError(
            what,
            why=f"prefixes that hold queues: {shown}",
            hint=command(near[0], "queues") if near else "name one of them with --prefix",
        )
    if (above := read_upstream(client)) is not None:
        return NotFoundError(what, why=f"this Redis is {above}", hint="ask its master: --redis URL")
    return NotFoundError(
        what,
        why="this Redis database holds no BullMQ queue at all" if is_complete else "",
        hint="check --redis URL: the host, and the database number at its end",
    )


def _described(prefixes: Prefixes) -> str:
    single = prefixes.single
    return f"the prefixes {str(prefixes)!r}" if single is None else f"the prefix {single!r}"


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """The items as text. If there are many: the first ones, and the number of the others."""
    shown = [*items[:MAX_NAMED]]
    if len(items) > MAX_NAMED:
        shown.append(f"… and {len(items) - MAX_NAMED:,} more")
    return separator.join(shown)
