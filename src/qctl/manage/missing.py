"""The error for a target that a manager does not have; it lists and suggests existing targets."""

from __future__ import annotations

from collections.abc import Sequence

from qctl.errors import NotFoundError
from qctl.similar import similar_names

_MAX_LISTED = 20


def listed(names: Sequence[str]) -> str:
    """The names as text. If there are many: the first ones, and the number of the others."""
    shown = list(names[:_MAX_LISTED])
    if len(names) > _MAX_LISTED:
        shown.append(f"{len(names) - _MAX_LISTED} more")
    return ", ".join(shown)


def no_such_target(
    what: str, wanted: str, targets: Sequence[str], *, hint: str = "name one of these targets"
) -> NotFoundError:
    """The error for ``wanted``; it lists the targets that exist.

    Args:
        what: the first line of the message.
        wanted: the target that does not exist, e.g. ``docker:worker``.
        targets: the targets that exist; at least one.
        hint: what to do if no target is similar.
    """
    near = similar_names(wanted, targets)
    return NotFoundError(
        what,
        why=f"targets: {listed(targets)}",
        hint=f"did you mean {near[0]}?" if near else hint,
    )
