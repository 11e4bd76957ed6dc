"""``qctl demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.errors import ExitStatus

app = App()


@app.command("demo")
def demo(
    env: Environment,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave the worker and its Redis running, to explore them"),
    ] = False,
) -> None:
    """Watch a restart under load, and the proof that no job was lost.

    The demo takes 15 seconds. It starts its own Redis, so --redis is ignored. Without --keep, the
    demo leaves nothing behind.
    """
    # Imported here, so that `qctl --help` stays fast.
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.demo.stage import open_stage  # noqa: PLC0415
    from qctl.demo.story import tell_story  # noqa: PLC0415

    is_table = env.output == "table"

    def say(text: str) -> None:
        stream = env.streams.stdout if is_table else env.streams.stderr
        stream.write(text + "\n")
        stream.flush()

    # A short watch of the new processes, because the demo should not take long.
    environ = {"QCTL_WATCH": "1s", **env.streams.environ}
    if env.no_color:
        environ["NO_COLOR"] = "1"
    with (
        stop_on_signals(env.note) as stop,
        open_stage(
            say, stop, environ, prefix=env.settings.prefix, keep=keep, to_stderr=not is_table
        ) as stage,
    ):
        proof = tell_story(stage, keep=keep)
    if not is_table:
        env.emit_json(proof)
    if not proof.holds:
        raise typer.Exit(ExitStatus.FAILED)
