"""Reads ``[groups.NAME]``: several targets under one name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from qctl.config.files import HINT, Layer
from qctl.errors import UsageError


def find_groups(layers: Sequence[Layer], targets: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """The targets of each group, as written. The first layer that names a group defines it.

    Args:
        targets: the names of the configured targets. A group must not have one of these names.

    Raises:
        UsageError: a group's value is not a list of targets, or a target has the group's name.
    """
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        for name in layer.table("groups"):
            if name in found:
                continue
            members = layer.table("groups", name).get("targets")
            if (
                not isinstance(members, list)
                or not members
                or not all(isinstance(member, str) and member for member in members)
            ):
                raise UsageError(
                    f'config: [groups.{name}] needs targets = ["MANAGER:NAME", "…"]', hint=HINT
                )
            if name in targets:
                raise UsageError(
                    f"config: {name} is the name of a target and of a group",
                    why=f"[targets.{name}] and [groups.{name}] are both defined",
                    hint="rename one of them",
                )
            found[name] = tuple(members)
    return found
