"""The config's guards, ``read_only`` and ``confirm``, applied to commands that write."""

from __future__ import annotations

from qctl.cli.environment import Environment
from qctl.config.settings import Settings
from qctl.errors import RefusedError, UsageError


def guard_write(env: Environment, confirmed: str | None, *, dry_run: bool) -> None:
    """Refuse a command that must not write, or ask for the context's name if the config wants it.

    Args:
        confirmed: the value of ``--confirm``.
        dry_run: nothing will be written, so only a wrong ``--confirm`` is refused.

    Raises:
        RefusedError: the operator typed another name; or see ``required_confirmation``.
        UsageError: ``--confirm`` names another context, or qctl cannot ask the operator.
    """
    if dry_run and confirmed is None:
        return
    settings = env.settings
    context = settings.guards.context
    if confirmed is not None and confirmed != context:
        raise UsageError(
            f"--confirm names {confirmed!r}, but "
            + (f"the context is {context!r}" if context else "no context guards this Redis"),
            hint=f"add --context {confirmed}, if you mean that context",
        )
    # required_confirmation refuses if the config is read-only, even with --confirm.
    if dry_run or required_confirmation(settings) is None or confirmed is not None:
        return
    if env.why_not_interactive:
        raise UsageError(
            f"context {context} asks for its name, but {env.why_not_interactive}",
            why=f"confirm = true in {settings.origins['confirm']}",
            hint=f"the same command with --confirm {context}",
        )
    if env.ask(f"This writes to context {context}. Type the context's name: ") != context:
        raise RefusedError(
            "nothing was done",
            why="another name was typed",
            hint="--dry-run shows what the command would do",
        )


def required_confirmation(settings: Settings) -> str | None:
    """The context's name if it must be typed before each write, else None.

    Raises:
        RefusedError: the config is read-only; or the name must be typed, but a flag or variable
            leads to another Redis than the context's own.
    """
    context, read_only, confirm, url_override = settings.guards
    if read_only:
        subject = f"context {context} is" if context else "the config makes qctl"
        raise RefusedError(
            f"{subject} read-only",
            why=f"read_only = true in {settings.origins['read_only']}",
            hint="--dry-run, or another context; no flag overrides read_only in that file",
        )
    if not confirm:
        return None
    # If a flag or variable leads to the Redis of another context than the chosen one, ``context``
    # is that other context, and typing its name confirms the write.
    if url_override and context == settings.context:
        raise RefusedError(
            "nothing was done: a context's name does not confirm writing to another Redis",
            why=f"context {context} has its own Redis, but {url_override} names another",
            hint=f"leave out {url_override}, or leave out the context",
        )
    return context
