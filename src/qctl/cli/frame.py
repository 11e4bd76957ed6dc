"""What every command shares: its options, its surroundings, how it talks to the operator.

A command module has a ``Typer`` made by ``new_app`` and functions decorated twice::

    app = new_app()

    @app.command("pause")
    @with_environment
    def pause(env: Environment, queues: Annotated[list[str], typer.Argument(help="…")]) -> None:
        \"\"\"Stop workers from taking jobs.\"\"\"
        _, client = env.redis()
        ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from qctl.cli.guard import guard_write
from qctl.cli.help import App, Command, Group
from qctl.cli.streams import Streams
from qctl.config.settings import Settings, load_settings
from qctl.connection.address import Address, Client
from qctl.connection.connect import connect
from qctl.errors import UsageError
from qctl.ops.processes.suggest import commands_like

if TYPE_CHECKING:
    from rich.console import Console

    from qctl.output.console import Column, Value

OutputMode = Literal["table", "json", "ndjson"]
_MODES: tuple[OutputMode, ...] = ("table", "json", "ndjson")
_LEAST_WIDTH = 20


@dataclass
class Environment:
    """A command's surroundings.

    Args:
        settings: from flags, environment and config files.
        output: ``table``, ``json`` or ``ndjson``.
        streams: where to write and read.
        no_color: the flag; NO_COLOR is looked at too.
        debug: whether tracebacks are wanted.
    """

    settings: Settings
    output: OutputMode
    streams: Streams
    no_color: bool = False
    debug: bool = False

    @property
    def interactive(self) -> bool:
        """Whether a question can be asked: a person is there, and the output is for a person."""
        streams = self.streams
        return streams.stdin_is_terminal and streams.stderr_is_terminal and self.output == "table"

    @property
    def animated(self) -> bool:
        """Whether stderr may show progress that overwrites itself."""
        return self.streams.stderr_is_terminal and self.output == "table" and not self._is_dumb

    def colour(self, stream: TextIO | None = None) -> bool:
        """Whether ``stream`` (stdout unless named) may be coloured."""
        streams = self.streams
        terminal = (
            streams.stderr_is_terminal if stream is streams.stderr else streams.stdout_is_terminal
        )
        wanted = not self.no_color and not streams.environ.get("NO_COLOR")
        return terminal and wanted and not self._is_dumb

    @property
    def _is_dumb(self) -> bool:
        return self.streams.environ.get("TERM") in {"dumb", "unknown"}

    @property
    def width(self) -> int:
        """Cells a line of stdout has; where it is not a terminal, enough for anything."""
        from qctl.output.console import UNLIMITED_WIDTH  # noqa: PLC0415

        if not self.streams.stdout_is_terminal:
            return UNLIMITED_WIDTH
        return self.terminal_width

    @property
    def terminal_width(self) -> int:
        """Cells a line of the terminal has, for text on stderr."""
        import shutil  # noqa: PLC0415

        return max(self.streams.width or shutil.get_terminal_size().columns, _LEAST_WIDTH)

    # Redis

    def redis(self) -> tuple[Address, Client]:
        """Where Redis is, and a client; one connection however often this is called."""
        return self._connection

    @cached_property
    def _connection(self) -> tuple[Address, Client]:
        return connect(self.settings.full_url())

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if "_connection" in self.__dict__:
            self._connection[1].close()

    # Data, on stdout

    def emit_json(self, result: Any) -> None:
        """Print a result (a frozen dataclass, dict …) as one line of JSON."""
        from qctl.output.json import dumps  # noqa: PLC0415

        self.streams.stdout.write(dumps(result) + "\n")
        if self.output == "ndjson":
            self.streams.stdout.flush()

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> None:
        """Print a table that fits; see ``output.console.table``."""
        from qctl.output.console import table  # noqa: PLC0415

        text = table(columns, rows, width=self.width, colour=self.colour())
        self.streams.stdout.write(text)

    def line(self, text: str = "") -> None:
        """Print one line of our own words on stdout; untrusted parts must be made ``visible``."""
        self.streams.stdout.write(text + "\n")

    @cached_property
    def out(self) -> Console:
        """A rich console on stdout, without markup, highlighting or emoji. It costs 40 ms."""
        return self._console(self.streams.stdout, self.streams.stdout_is_terminal, self.width)

    # Progress, remarks and questions, on stderr

    @cached_property
    def err(self) -> Console:
        """A rich console on stderr; see ``out``."""
        return self._console(
            self.streams.stderr, self.streams.stderr_is_terminal, self.terminal_width
        )

    def _console(self, stream: TextIO, terminal: bool, width: int) -> Console:
        from rich.console import Console  # noqa: PLC0415

        return Console(
            file=stream,
            force_terminal=terminal and not self._is_dumb,
            no_color=not self.colour(stream),
            width=width,
            markup=False,
            highlight=False,
            emoji=False,
        )

    def note(self, text: str) -> None:
        """Print a remark on stderr; control characters in it are made visible."""
        from qctl.output.text import visible  # noqa: PLC0415

        for line in text.split("\n"):
            self.streams.stderr.write(visible(line) + "\n")
        self.streams.stderr.flush()

    def confirm(self, question: str, flag: str = "--yes") -> bool:
        """Ask a yes-or-no question on stderr; anything but y or yes is a no.

        Args:
            question: without a question mark's answers, e.g. ``Restart pm2:worker?``.
            flag: what answers yes on the command line.

        Raises:
            UsageError: there is nobody to ask.
        """
        if not self.interactive:
            raise UsageError(
                "this needs a yes, and there is nobody to ask",
                why=question,
                hint=f"the same command with {flag}",
            )
        answer = self.ask(f"{question} [y/N] ")
        return answer.strip().lower() in {"y", "yes"}

    def confirm_name(self, warning: str, name: str, flag: str = "--yes") -> bool:
        """Have a name typed on stderr, for what should not be done by a hasty ``y``.

        Args:
            warning: what will be done.
            name: what to type, e.g. the queue's name.
            flag: what answers on the command line.

        Raises:
            UsageError: there is nobody to ask.
        """
        if not self.interactive:
            raise UsageError(
                "this needs an answer, and there is nobody to ask",
                why=warning,
                hint=f"the same command with {flag}, after one with --dry-run",
            )
        self.note(warning)
        return self.ask(f"Type {name} to go on: ").strip() == name

    def ask(self, prompt: str) -> str:
        """One line typed after ``prompt``, without its line end; empty at the end of input.

        Use ``confirm`` or ``confirm_name``, or check ``interactive`` first.
        """
        from qctl.output.text import visible  # noqa: PLC0415

        self.streams.stderr.write(visible(prompt))
        self.streams.stderr.flush()
        return self.streams.stdin.readline().rstrip("\r\n")


def new_app(help_text: str = "") -> typer.Typer:
    """An empty set of commands with qctl's conventions: plain help that begins with examples."""
    return App(
        cls=Group,
        help=help_text or None,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def optional_value(flag: str, default: str) -> type[Command]:
    """A command class in which ``flag`` may stand alone and then means ``flag default``.

    The word after it is its value only if it starts with a digit, so that an argument may follow.
    """

    class OptionalValueCommand(Command):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            for index in range(end - 1, -1, -1):
                following = args[index + 1 : end][:1]
                if args[index] == flag and not (following and following[0][:1].isdigit()):
                    args.insert(index + 1, default)
            return super().parse_args(ctx, args)

    return OptionalValueCommand


Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="Redis  [env: QCTL_REDIS_URL, else REDIS_URL]"),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", metavar="PFX", help="BullMQ's key prefix  [env: QCTL_PREFIX]"),
]
ContextName = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="NAME", help="[contexts.NAME] of the config  [env: QCTL_CONTEXT]"
    ),
]
Output = Annotated[
    OutputMode | None, typer.Option("--output", help="Form of the result  [env: QCTL_OUTPUT]")
]
Json = Annotated[bool, typer.Option("--json", help="The same as --output json")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Without colours  [env: NO_COLOR]")]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks on errors  [env: QCTL_DEBUG]")]

_COMMON: dict[str, Any] = {
    "redis_url": (Redis, None),
    "prefix": (Prefix, None),
    "context": (ContextName, None),
    "output": (Output, None),
    "as_json": (Json, False),
    "no_color": (NoColor, False),
    "debug": (Debug, False),
}
# Of every command that writes, which is every one with --dry-run.
_CONFIRM = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The context's name, where it is asked for"),
]
COMMON_FLAGS = ("--redis", "--prefix", "--context", "--output", "--json", "--no-color", "--debug")


def with_environment(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options, and an ``Environment`` as its first parameter.

    A command with a ``dry_run`` writes: the context's ``read_only`` and ``confirm`` hold for it.
    """
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in _COMMON.items()
    ]
    writes = "dry_run" in signature.parameters
    if writes:
        kind = inspect.Parameter.KEYWORD_ONLY
        common.insert(0, inspect.Parameter("confirmed", kind, default=None, annotation=_CONFIRM))
    # Keyword-only parameters may lack a default whatever stands before them, as an argument may.
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    context = inspect.Parameter(
        "typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
    )

    def command(typer_context: typer.Context, **arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in _COMMON}
        confirmed = arguments.pop("confirmed", None)
        streams = typer_context.obj
        if not isinstance(streams, Streams):
            streams = Streams.standard()
        env = make_environment(streams, **options)
        for warning in env.settings.warnings:
            env.note(warning)
        try:
            with commands_like(env.settings):
                if writes:
                    guard_write(env, confirmed, dry_run=arguments["dry_run"])
                function(env, **arguments)
        finally:
            env.close()

    parameters = [context, *own, *common]
    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__module__ = function.__module__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def make_environment(
    streams: Streams,
    *,
    redis_url: str | None = None,
    prefix: str | None = None,
    context: str | None = None,
    output: OutputMode | None = None,
    as_json: bool = False,
    no_color: bool = False,
    debug: bool = False,
) -> Environment:
    """The environment that the common options and the environment variables describe.

    Raises:
        UsageError: options contradict each other or are empty, or a setting is malformed.
    """
    environ = streams.environ
    for flag, value in (("--redis", redis_url), ("--prefix", prefix), ("--context", context)):
        if value == "":
            # Another place would decide which Redis is written to.
            raise UsageError(f"{flag} is empty", hint=f"leave it out for the default, or {flag} …")
    if as_json and output not in {None, "json"}:
        raise UsageError(f"--json and --output {output} contradict each other", hint="use one")
    wanted = "json" if as_json else output or environ.get("QCTL_OUTPUT") or "table"
    mode = next((mode for mode in _MODES if mode == wanted), None)
    if mode is None:
        raise UsageError(
            f"QCTL_OUTPUT is {wanted!r}, which is no form of output",
            hint=f"set it to one of: {', '.join(_MODES)}",
        )
    return Environment(
        settings=load_settings(
            redis_url=redis_url, prefix=prefix, context=context, environ=environ
        ),
        output=mode,
        streams=streams,
        no_color=no_color,
        debug=debug or wants_debug(environ),
    )


def wants_debug(environ: Mapping[str, str]) -> bool:
    """Whether QCTL_DEBUG is set to anything but 0 or nothing."""
    return environ.get("QCTL_DEBUG", "") not in {"", "0"}
