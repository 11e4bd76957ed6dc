"""The program: finds the command, and turns every failure into a message and an exit code.

Commands are named here and loaded only when used (docs/start-up.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import typer

# Typer's own copy of click; a later version of typer might move it, so typer is pinned.
from typer import _click as click
from typer._click import exceptions as click_errors

from qctl import __version__
from qctl.cli.frame import App, common_params
from qctl.cli.help import CONTEXT_SETTINGS, Group
from qctl.cli.spelling import nearest, nearest_flag
from qctl.cli.streams import OutputError, Streams
from qctl.errors import ExitStatus, QctlError, UsageError

# Name → module and help line, in the order of `qctl --help`. A test checks that each help line is
# the first line of the command's own help.
COMMANDS: dict[str, tuple[str, str]] = {
    "status": ("status", "Queues at a glance: problems, jobs by state, workers, processes."),
    "queues": ("queues", "List the queues that exist; change or delete a queue."),
    "workers": ("status", "Workers that are connected, and the processes they run in."),
    "jobs": ("jobs", "List jobs, count failures, show one, add, retry, delete."),
    "pause": ("pause", "Stop workers from taking jobs; active jobs continue."),
    "resume": ("pause", "Let workers take jobs again."),
    "drain": (
        "drain",
        "Let active jobs finish, then restart the workers if wanted.",
    ),
    "restart": ("drain", "Restart a process without interrupting its jobs."),
    "impact": ("impact", "What a restart now would do to the jobs, and when to restart."),
    "doctor": ("doctor", "Find problems of queues, workers and Redis, each with its fix."),
    "schedules": ("schedules", "Job schedulers: list, show, set, remove, run now, migrate."),
    "events": ("events", "Show the recent events of a queue, or follow new ones."),
    "wait": ("wait", "Wait until a queue is idle or empty, or a job is finished."),
    "purge": ("bulk", "Delete the jobs of a state."),
    "top": ("top", "Queues, workers and jobs, live on a full screen."),
    "metrics": ("metrics", "Metrics of queues and workers for Prometheus."),
    "mcp": ("mcp.command", "Let an agent use qctl: a Model Context Protocol server on stdio."),
    "worker": ("worker", "Run Python workers, in the foreground or background."),
    "demo": ("demo", "Watch a restart under load, and the proof that no job was lost."),
    "config": ("config", "The settings, and where each comes from."),
    "contexts": ("contexts", "Names of the contexts that the config files define."),
    "acl": ("acl", "The ACL rule that gives a Redis user only the needed rights."),
    "completion": (
        "completion",
        "Print the script for completion in your shell.",
    ),
    "help": ("pages", "Show a page of the documentation; without TOPIC, list the pages."),
}
# Finds the wrong value in Click's message about an option with fixed choices.
_NO_CHOICE = re.compile(r"'([^']*)' is not one of")


class CommandGroup(Group):
    """The group of all ``COMMANDS``, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def first_lines(self) -> Iterator[tuple[str, str]]:
        yield from ((name, line) for name, (_, line) in COMMANDS.items())


def load_command(name: str) -> click.Command:
    """Import the module of a command or group, and build only that command or group."""
    module, line = COMMANDS[name]
    app: App = import_module(f"qctl.cli.{module}").app
    return app.build(name, line)


def writes(command: Any) -> bool:
    """Whether a command changes queues: all that do, and no others, have --dry-run.

    A group does if one of its commands does, unless the group itself is a command.
    """
    subcommands = getattr(command, "commands", {})
    if subcommands and not command.invoke_without_command:
        return any(map(writes, subcommands.values()))
    return any("--dry-run" in parameter.opts for parameter in command.params)


def build() -> CommandGroup:
    """The whole command line; each command is loaded when it is used."""
    version = typer.core.TyperOption(
        param_decls=["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version.",
    )
    return CommandGroup(
        name="qctl",
        help="Operate BullMQ job queues: inspect, drain, restart workers, lose nothing.",
        epilog="More about a command: qctl COMMAND --help. The documentation: qctl help. The "
        "options above may also follow the command: qctl status --json.",
        params=[version, *common_params()],
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=CONTEXT_SETTINGS,
    )


def _print_version(ctx: click.Context, _: Any, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        typer.echo(f"qctl {__version__}")
        ctx.exit()


def run(arguments: Sequence[str], streams: Streams) -> int:
    """Run one command, and turn exceptions into messages and exit codes.

    Returns:
        the exit code (docs/cli.md).
    """
    debug = "--debug" in arguments or streams.environ.get("QCTL_DEBUG", "") not in {"", "0"}
    try:
        code = _invoke(arguments, streams)
        streams.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        _write_lines(streams, ["", "interrupted"])
        return ExitStatus.INTERRUPTED
    except Exception as error:
        if debug:
            import traceback  # noqa: PLC0415 - rarely needed

            _write_lines(streams, traceback.format_exc().rstrip("\n").split("\n"))
        if isinstance(error, OutputError):
            _discard_stdout()
        if not isinstance(error, QctlError):
            text = f"unexpected: {type(error).__name__}: {error}"
            error = QctlError(text, hint="" if debug else "the same command with --debug")
        colour = "--no-color" not in arguments and streams.may_colour(streams.stderr)
        _write_lines(streams, error.lines, colour=colour)
        return error.exit_status
    return code


def _invoke(arguments: Sequence[str], streams: Streams) -> int:
    group = build()
    try:
        with group.make_context("qctl", list(arguments), obj=streams) as ctx:
            group.invoke(ctx)
    except click_errors.Exit as error:
        return error.exit_code
    except click_errors.Abort:
        raise KeyboardInterrupt from None
    except click_errors.NoArgsIsHelpError as error:
        streams.stderr.write(error.format_message() + "\n")
        return ExitStatus.USAGE
    except click_errors.ClickException as error:
        raise _usage_error(error, arguments) from error
    return ExitStatus.OK


def _usage_error(error: click_errors.ClickException, arguments: Sequence[str]) -> UsageError:
    ctx = getattr(error, "ctx", None)
    # For an error without a context: the first argument that is the name of a command.
    typed = next((word for word in arguments if word in COMMANDS), "")
    path = ctx.command_path if ctx else f"qctl {typed}".rstrip()
    what = " ".join(error.format_message().split()).rstrip(".")
    hint = f"{path} --help"
    wrong = near = ""
    if isinstance(error, click_errors.NoSuchOption):
        wrong = error.option_name
        what = f"{path} has no option {wrong}"
        # Flags are compared without their dashes: with them, any two short flags look alike.
        flags = {flag.lstrip("-"): flag for flag in error.possibilities or ()}
        near = flags.get(nearest_flag(wrong.lstrip("-"), flags), "")
    elif what.startswith("No such command") and ctx:
        wrong = next((word for word in arguments if repr(word) in what), "")
        what = f"{path} has no command {wrong!r}"
        if wrong == "help" or (wrong == "version" and not ctx.parent):
            hint = f"{path} --{wrong}"
        else:
            near = nearest(wrong, ctx.command.list_commands(ctx))
    elif (match := _NO_CHOICE.search(what)) and isinstance(error, click_errors.BadParameter):
        wrong = match[1]
        near = nearest(wrong, getattr(getattr(error.param, "type", None), "choices", ()))
    if near:
        hint = _retyped(arguments, wrong, near) or hint
    return UsageError(what[:1].lower() + what[1:], hint=hint)


def _retyped(arguments: Sequence[str], wrong: str, right: str) -> str:
    """The command line with the first ``wrong`` replaced by ``right``; "" if there is none."""
    from qctl.ops.processes.suggest import quoted  # noqa: PLC0415 - only for a command that is wrong

    for index, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if word == wrong:
            corrected = right
        elif equals and flag == wrong:
            corrected = f"{right}={value}"
        elif equals and value == wrong:
            corrected = f"{flag}={right}"
        else:
            continue
        words = [*arguments[:index], corrected, *arguments[index + 1 :]]
        return " ".join(["qctl", *map(quoted, words)])
    return ""


def _write_lines(streams: Streams, lines: Sequence[str], *, colour: bool = False) -> None:
    from qctl.output.console import styled  # noqa: PLC0415
    from qctl.output.text import visible, without_passwords, wrapped  # noqa: PLC0415

    try:
        # On a terminal, the output must appear before the error.
        streams.stdout.flush()
    except (OSError, OutputError):
        _discard_stdout()
    try:
        for line in lines:
            text = visible(without_passwords(line))
            # Lines with a command are not wrapped, so that the command can be copied. Lines that
            # begin with a space are not wrapped either, so that a caret stays below its character.
            is_prose = streams.stderr_is_terminal and not text.startswith(("try:", " "))
            parts = list(wrapped(text, streams.terminal_width, cut=False)) if is_prose else [text]
            for label, style in (("error:", "bold red"), ("try:", "bold")):
                if colour and text.startswith(label):
                    parts[0] = styled(label, style, colour=True) + parts[0].removeprefix(label)
            streams.stderr.writelines(f"{part}\n" for part in parts)
        streams.stderr.flush()
    except OSError:
        # Nobody reads stderr any more. If stderr was a terminal that is now closed, nobody reads
        # stdout on that terminal either.
        _discard_stdout()


def _discard_stdout() -> None:
    """Send the rest of stdout to the null device, so that the interpreter's last flush succeeds."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
