"""Reads ``[groups.NAME]``: several targets under one name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from qctl.config.files import HINT, Layer
from qctl.errors import UsageError


def find_groups(
    layers: Sequence[Layer], targets: Collection[str]
) -> Mapping[str, tuple[str, ...] | UsageError]:
    """The targets of each group, as written. The first layer that names a group defines it.

    If a group is not valid, its value is the error. The error is not raised here, so that only the
    commands that name the group fail; other commands, such as ``status``, still work.

    Args:
        targets: names of the configured targets; a group must have another name.
    """
    found: dict[str, tuple[str, ...] | UsageError] = {}
    for layer in layers:
        for name in layer.table("groups"):
            if name not in found:
                try:
                    found[name] = _members(layer, name, targets)
                except UsageError as error:
                    found[name] = error
    return found


def _members(layer: Layer, name: str, targets: Collection[str]) -> tuple[str, ...]:
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
    return tuple(members)
