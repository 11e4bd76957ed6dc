"""The guards of a context, ``read_only`` and ``confirm``, applied to commands that write."""

from __future__ import annotations

from qctl.cli.environment import Environment
from qctl.config.settings import Settings
from qctl.errors import RefusedError, UsageError


def guard_write(env: Environment, confirmed: str | None, *, dry_run: bool) -> None:
    """Stop a command that must not write, or ask for the context's name.

    Args:
        confirmed: the value of ``--confirm``.
        dry_run: nothing will be written, so nothing is refused or asked.

    Raises:
        RefusedError: the context is read-only, another name was typed, or the name would confirm
            writing to another Redis than that of the context.
        UsageError: no terminal to ask for the name on, or ``--confirm`` has another name.
    """
    if dry_run and confirmed is None:
        return
    settings = env.settings
    if confirmed is not None and confirmed != settings.guard:
        raise UsageError(
            f"--confirm names {confirmed!r}, and "
            + (
                f"the context is {settings.guard!r}"
                if settings.guard
                else "no context guards this Redis"
            ),
            hint=f"add --context {confirmed}, if you mean that one",
        )
    if dry_run or name_to_type(settings) is None or confirmed is not None:
        return
    if not env.interactive:
        raise UsageError(
            f"context {settings.guard} asks for its name, but there is no terminal to ask on",
            why=f"confirm = true in {settings.origins['confirm']}",
            hint=f"the same command with --confirm {settings.guard}",
        )
    if env.ask(f"This writes to context {settings.guard}. Type its name: ") != settings.guard:
        raise RefusedError(
            "nothing was done",
            why="another name was typed",
            hint="--dry-run shows what the command would do",
        )


def name_to_type(settings: Settings) -> str | None:
    """The context's name, which has to be typed before each write; None where it need not be.

    Raises:
        RefusedError: the context is read-only, or its name would confirm writing to another Redis
            than its own.
    """
    if settings.read_only:
        of = f"context {settings.guard} is" if settings.guard else "the config makes qctl"
        raise RefusedError(
            f"{of} read-only",
            why=f"read_only = true in {settings.origins['read_only']}",
            hint="--dry-run; no flag overrides this, only another context or a change of that file",
        )
    if not settings.confirm:
        return None
    if settings.elsewhere and settings.guard == settings.context:
        raise RefusedError(
            "nothing was done: a context's name does not confirm writing to another Redis",
            why=f"context {settings.context} has its own, but {settings.elsewhere} names another",
            hint=f"without {settings.elsewhere}, or without the context",
        )
    return settings.guard
