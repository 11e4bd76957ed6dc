"""``qctl completion SHELL``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from qctl.cli.frame import new_app
from qctl.cli.streams import Streams

app = new_app()


@app.command("completion")
def completion(
    ctx: typer.Context,
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish")
    ],
) -> None:
    """Print the script for completion in your shell."""
    from qctl.cli.shells import script  # noqa: PLC0415 - not for --help

    streams = ctx.obj if isinstance(ctx.obj, Streams) else Streams.standard()
    streams.stdout.write(script(shell))
