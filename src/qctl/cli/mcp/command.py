"""``qctl mcp``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import Confirmed
from qctl.config.settings import Settings
from qctl.errors import FailedError, UsageError
from qctl.extras import install_command

app = App()


@app.command("mcp")
def mcp(
    env: Environment,
    allow_writes: Annotated[
        bool,
        typer.Option(
            "--allow-writes",
            help="Also offer tools that change queues and restart workers; each of them shows its "
            "plan first",
        ),
    ] = False,
    # The frame would not pass on an argument with the name ``confirmed``.
    context_name: Confirmed = None,
) -> None:
    """Let an agent use qctl: a Model Context Protocol server on stdio.

    Its tools are the commands of qctl, with their JSON. Without --allow-writes they only read.
    Needs the extra qctl[mcp].
    """
    if env.streams.stdin_is_terminal:
        raise UsageError(
            "qctl mcp talks to an agent on stdin, not to a terminal",
            why="the agent starts it, as its configuration says",
            hint="qctl help mcp",
        )
    # The package mcp has had mcp_types since version 2.
    if find_spec("mcp") is None or find_spec("mcp_types") is None:
        raise FailedError(
            "qctl mcp needs the package mcp 2, which is not installed",
            hint=install_command("mcp"),
        )
    from qctl.cli.mcp.calls import Runner  # noqa: PLC0415 - asyncio
    from qctl.cli.mcp.server import serve  # noqa: PLC0415 - pydantic and more, 1 s

    settings = env.settings
    runner = Runner([*_flags(settings)], env.streams.environ, settings.warnings)
    serve(runner, allow_writes=allow_writes, confirmed=context_name)


def _flags(settings: Settings) -> Iterator[str]:
    """The flags of this command that choose Redis and prefixes; the tools' commands get them."""
    by_flag = {key for key, origin in settings.origins.items() if origin.kind == "flag"}
    if "redis.url" in by_flag:
        yield f"--redis={settings.redis_url}"
    if "redis.prefix" in by_flag:
        yield from (f"--prefix={pattern}" for pattern in settings.prefixes.patterns)
    if "context" in by_flag:
        yield f"--context={settings.context}"
