"""Names of services: as an operator types them, as systemd knows them, and as qctl shows them."""

from __future__ import annotations

from qctl.errors import NotFoundError

SUFFIX = ".service"
_OTHER_TYPES = (
    ".automount",
    ".device",
    ".mount",
    ".path",
    ".scope",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
)


def unit_pattern(name: str) -> str:
    """The unit to ask systemd for; ``NAME@*.service`` for all instances of a template.

    Args:
        name: as the operator types it: ``emails``, ``emails.service``, ``emails@1``, ``emails@*``
            or ``emails@`` (all instances).

    Raises:
        NotFoundError: this cannot be the name of a service.
    """
    if name.endswith(_OTHER_TYPES):
        raise NotFoundError(
            f"{name} is not a service",
            why="only services have worker processes",
            hint="name the service that it starts: NAME.service",
        )
    template, at, instance = name.removesuffix(SUFFIX).partition("@")
    if at and instance in {"", "*"}:
        instance = "*"
    rest = template + ("" if instance == "*" else instance)
    if not template or any(char in "*?[]/ " for char in rest):
        raise NotFoundError(
            f"{name!r} is not the name of a service",
            why="a name means one unit, such as emails.service, or all instances of a template",
            hint="for all instances, type NAME@*.service",
        )
    return f"{template}{at}{instance}{SUFFIX}"


def is_pattern(unit: str) -> bool:
    """Whether a result of ``unit_pattern`` means all instances of a template."""
    return unit.endswith(f"@*{SUFFIX}")


def family_of(unit: str) -> str:
    """``emails@*.service`` if the unit is an instance of ``emails@``; otherwise the unit itself."""
    template, at, _ = unit.removesuffix(SUFFIX).partition("@")
    return f"{template}@*{SUFFIX}" if at else unit
