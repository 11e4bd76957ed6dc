"""``qctl contexts``."""

from __future__ import annotations

from qctl.cli.environment import Environment
from qctl.cli.frame import App

app = App()


@app.command("contexts")
def contexts(env: Environment) -> None:
    """Names of the contexts that the config files define.

    The chosen context is marked. Guards apply to commands that write: read-only refuses the
    command, and confirm asks for the context's name before it runs.
    """
    from qctl.ops.settings import list_contexts  # noqa: PLC0415 - not for --help
    from qctl.output.settings import CONTEXTS  # noqa: PLC0415

    found = list_contexts(env.settings, env.streams.environ)
    if_none = "no context is defined; [contexts.NAME.redis] in a config file defines one"
    env.show_table({"contexts": found}, CONTEXTS, found, if_none=if_none)
