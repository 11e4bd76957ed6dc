"""Finds the processes of supervisord that a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qctl.errors import NotFoundError
from qctl.manage.missing import no_such_target
from qctl.manage.protocol import ManagedProcess


def select(processes: Sequence[ManagedProcess], name: str) -> Sequence[ManagedProcess]:
    """The processes that ``NAME``, ``GROUP:NAME`` or ``GROUP:*`` means.

    Raises:
        NotFoundError: there are none.
    """
    group, separator, member = name.partition(":")
    if member == "*":
        found = [process for process in processes if process.key.startswith(f"{group}:")]
    else:
        key = name if separator else f"{name}:{name}"
        found = [process for process in processes if process.key == key]
    if not found:
        raise _not_found(processes, name)
    # The same processes must always have the same target, whichever name selected them.
    own = {process.target for process in found}
    if len(own) == 1 and sum(process.target in own for process in processes) == len(found):
        return found
    return [replace(process, target=f"supervisord:{name}") for process in found]


def _not_found(processes: Sequence[ManagedProcess], name: str) -> NotFoundError:
    what, hint = f"supervisord has no process {name}", "see `supervisorctl status`"
    targets = list(dict.fromkeys(process.target for process in processes))
    if not targets:
        return NotFoundError(what, why="it has no processes", hint=hint)
    return no_such_target(what, f"supervisord:{name}", targets, hint=hint)
