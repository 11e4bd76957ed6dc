"""``qctl config``: the settings in force, and the files they come from."""

from __future__ import annotations

from qctl.cli.environment import Environment
from qctl.cli.frame import App

app = App()


@app.command("view")
def view(env: Environment) -> None:
    """The settings, and where each comes from.

    Passwords are shown as ***. No password_command is run.
    """
    from qctl.ops.settings import describe_settings  # noqa: PLC0415 - not for --help
    from qctl.output.settings import SETTINGS  # noqa: PLC0415

    settings = describe_settings(env.settings)
    result = {"settings": settings, "warnings": env.settings.warnings}
    env.show_table(result, SETTINGS, settings)


@app.command("path")
def path(env: Environment) -> None:
    """The config files, highest precedence first."""
    from qctl.ops.settings import config_files  # noqa: PLC0415 - not for --help
    from qctl.output.settings import FILES  # noqa: PLC0415

    files = config_files(env.streams.environ)
    env.show_table({"files": files}, FILES, files)
