"""Finds the processes of supervisord that a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qctl.errors import NotFoundError
from qctl.manage.protocol import ManagedProcess
from qctl.similar import similar_names

_MAX_LISTED = 20


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
    targets = list(dict.fromkeys(process.target for process in processes))
    listed = targets[:_MAX_LISTED]
    if len(targets) > _MAX_LISTED:
        listed.append(f"{len(targets) - _MAX_LISTED} more")
    near = similar_names(f"supervisord:{name}", targets)
    return NotFoundError(
        f"supervisord has no process {name}",
        why=f"targets: {', '.join(listed)}" if targets else "it has no processes",
        hint=f"did you mean {near[0]}?" if near else "see `supervisorctl status`",
    )
