"""The environment of a command: settings, connection, output, and questions to the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_args

from qctl.cli.options import CommonOptions, OutputMode
from qctl.cli.streams import Streams
from qctl.config.settings import load_settings
from qctl.connection.address import Address, Client
from qctl.connection.connect import connect
from qctl.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from qctl.output.console import Column

T = TypeVar("T")
_MODES: tuple[OutputMode, ...] = get_args(OutputMode)


class Environment:
    """What every command works with.

    Attributes:
        settings: from flags, environment variables and config files.
        no_color: whether --no-color was given; the variable NO_COLOR has the same effect.

    Raises:
        UsageError: options contradict each other or are empty, or a setting is malformed.
    """

    def __init__(
        self, streams: Streams, options: CommonOptions, kube_context: str | None = None
    ) -> None:
        for flag, value in (
            ("--redis", options.redis_url),
            *(("--prefix", prefix) for prefix in options.prefix or ()),
            ("--context", options.context),
            ("--kube-context", kube_context),
        ):
            if value == "":
                # If an empty value counted as absent, qctl could write to another Redis.
                raise UsageError(f"{flag} is empty", hint=f"leave {flag} out for the default")
        if options.prefix and options.all_prefixes:
            raise UsageError("--prefix and --all-prefixes exclude each other", hint="use one")
        self.streams = streams
        self._live: Live | None = None
        self.no_color = options.no_color
        self.output = _output_mode(options, streams.environ)
        self.settings = load_settings(
            redis_url=options.redis_url,
            prefixes=options.prefix or (),
            all_prefixes=options.all_prefixes,
            context=options.context,
            kube_context=kube_context,
            environ=streams.environ,
        )

    @property
    def why_not_interactive(self) -> str:
        """Why qctl cannot ask the operator a question; "" if it can."""
        if self.output != "table":
            return f"qctl asks no questions when the output is {self.output}"
        has_terminal = self.streams.stdin_is_terminal and self.streams.stderr_is_terminal
        return "" if has_terminal else "there is no terminal to ask on"

    @property
    def animated(self) -> bool:
        """Whether stderr may show progress that overwrites itself."""
        return (
            self.streams.stderr_is_terminal and self.output == "table" and not self.streams.is_dumb
        )

    def may_colour(self, stream: TextIO | None = None) -> bool:
        """Whether ``stream`` (by default stdout) may be coloured."""
        return not self.no_color and self.streams.may_colour(stream or self.streams.stdout)

    @property
    def width(self) -> int:
        """The width of stdout in cells; unlimited if stdout is not a terminal."""
        from qctl.output.console import UNLIMITED_WIDTH  # noqa: PLC0415

        return self.terminal_width if self.streams.stdout_is_terminal else UNLIMITED_WIDTH

    @property
    def terminal_width(self) -> int:
        """The width of the terminal in cells."""
        return self.streams.terminal_width

    @property
    def terminal_height(self) -> int:
        """The height of the terminal in lines."""
        import shutil  # noqa: PLC0415

        return shutil.get_terminal_size().lines

    def console(self, stream: TextIO) -> Console:
        """A rich console on a terminal, without markup, highlighting or emoji. Slow: 40 ms."""
        from rich.console import Console  # noqa: PLC0415

        return Console(
            file=stream,
            force_terminal=not self.streams.is_dumb,
            no_color=not self.may_colour(stream),
            width=self.terminal_width,
            markup=False,
            highlight=False,
            emoji=False,
        )

    # Redis

    def redis(self) -> tuple[Address, Client]:
        """The address of Redis and a client; every call returns the same connection."""
        return self._connection

    @cached_property
    def _connection(self) -> tuple[Address, Client]:
        return connect(self.settings.full_url())

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if "_connection" in self.__dict__:
            self._connection[1].close()

    # Data, on stdout

    def emit_json(self, result: Any, items: Iterable[Any] | None = None) -> None:
        """Print a result (a frozen dataclass, dict …) as one line of JSON.

        In ndjson, a result whose class has an attribute ``step`` begins with the step's name.

        Args:
            items: what ndjson prints instead of the result, one item per line.
        """
        from qctl.output.json import dumps, with_step  # noqa: PLC0415

        if self.output != "ndjson":
            self.streams.stdout.write(dumps(result) + "\n")
            return
        for each in (result,) if items is None else items:
            text = dumps(with_step(each) if hasattr(each, "step") else each)
            self.streams.stdout.write(text + "\n")
            self.streams.stdout.flush()

    def show(self, result: Any, lines: Iterable[str], *, dry_run: bool = False) -> None:
        """Print ``lines`` if the output is a table, else JSON; ``dry_run`` marks each line."""
        if self.output != "table":
            self.emit_json(result)
            return
        for line in lines:
            self.print(f"{line} (dry run)" if dry_run else line)

    def show_table(
        self, result: Any, columns: Sequence[Column[T]], items: Sequence[T], *, if_none: str = ""
    ) -> None:
        """Print ``items`` as a table, or ``result`` as JSON if the output is not a table.

        If there are no items for the table, print ``if_none`` on stderr.
        """
        if self.output != "table":
            self.emit_json(result)
        elif items:
            self.table(columns, items)
        elif if_none:
            self.note(if_none)

    def table(self, columns: Sequence[Column[T]], items: Sequence[T]) -> None:
        """Print a table that fits the terminal; see ``output.console.table``."""
        from qctl.output.console import table  # noqa: PLC0415

        self.draw(table, columns, items)

    def draw(self, text_of: Callable[..., str], *results: Any) -> None:
        """Print the text that a function of ``output/`` makes from results."""
        text = text_of(*results, width=self.width, colour=self.may_colour())
        self.streams.stdout.write(text)

    def print(self, *lines: str) -> None:
        """Print lines on stdout. The caller passes untrusted parts through ``visible``."""
        for line in lines:
            self.streams.stdout.write(line + "\n")

    @property
    def shows_blocks(self) -> bool:
        """Whether to print blocks that fit a terminal; if not, each fact is on its own line."""
        return self.output == "table" and self.streams.stdout_is_terminal

    def print_block(
        self, lines_of: Callable[..., Iterable[str]], *results: Any, **options: Any
    ) -> None:
        """Print the lines that a function of ``output/`` makes for the terminal."""
        width, colour = self.terminal_width, self.may_colour()
        self.print(*lines_of(*results, width=width, colour=colour, **options))

    # Progress, remarks and questions, on stderr

    def note(self, *texts: str) -> None:
        """Print remarks on stderr, with control characters made visible."""
        if not texts:
            return
        from qctl.output.text import visible  # noqa: PLC0415

        for line in map(visible, "\n".join(texts).split("\n")):
            if self._live is None:
                self.streams.stderr.write(line + "\n")
            else:
                # Print above the line that ``progress`` redraws.
                self._live.console.print(line, soft_wrap=True)
        self.streams.stderr.flush()

    def note_wrapped(self, *texts: str) -> None:
        """Print remarks on stderr, wrapped between words to fit the terminal.

        Use ``note`` for a command: a wrapped command cannot be copied.
        """
        self.note(*(line for text in texts for line in self._wrapped(text)))

    @contextmanager
    def progress(self, text: Callable[[], str]) -> Iterator[None]:
        """Show ``text()`` on one line while the block runs. If not ``animated``, show nothing.

        A thread redraws the line, even during a long step of the block.
        """
        if not self.animated:
            yield
            return
        from rich.live import Live  # noqa: PLC0415 - only on a terminal
        from rich.text import Text  # noqa: PLC0415

        live = Live(
            get_renderable=lambda: Text(text()),
            console=self.console(self.streams.stderr),
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def confirm(self, question: str, hint: str = "") -> None:
        """Ask a yes-or-no question on stderr; anything but y or yes is a no.

        Raises:
            RefusedError: the answer is no; ``hint`` becomes the hint of the error.
            UsageError: qctl cannot ask; see ``why_not_interactive``.
        """
        if self.why_not_interactive:
            raise UsageError(
                f"this needs a yes, but {self.why_not_interactive}",
                why=question,
                hint="the same command with --yes",
            )
        if self.ask(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
            raise RefusedError("nothing was done", hint=hint)

    def confirm_name(self, warning: str, name: str) -> None:
        """Ask the operator to type ``name``, for changes that a hasty ``y`` must not confirm.

        Raises:
            RefusedError: the operator typed something else.
            UsageError: qctl cannot ask; see ``why_not_interactive``.
        """
        if self.why_not_interactive:
            raise UsageError(
                f"this needs an answer, but {self.why_not_interactive}",
                why=warning,
                hint="run the same command with --dry-run first, then with --yes",
            )
        self.note_wrapped(warning)
        if self.ask(f"Type {name} to go on: ").strip() != name:
            raise RefusedError("nothing was done", why=f"the answer was not {name}")

    def ask(self, prompt: str) -> str:
        """Print ``prompt`` and return the line that is typed; "" at the end of input.

        Use ``confirm`` or ``confirm_name``, or check ``why_not_interactive`` first.
        """
        self.streams.discard_typed()
        self.streams.stderr.write("\n".join(self._wrapped(prompt)))
        self.streams.stderr.flush()
        return self.streams.stdin.readline().rstrip("\r\n")

    def _wrapped(self, text: str) -> Iterator[str]:
        from qctl.output.text import cells, visible, wrapped  # noqa: PLC0415

        text = visible(text)
        if cells(text) <= self.terminal_width:
            # ``wrapped`` would remove the indent.
            yield text
        else:
            yield from wrapped(text, self.terminal_width, cut=False)


def _output_mode(options: CommonOptions, environ: Mapping[str, str]) -> OutputMode:
    if options.as_json and options.output not in {None, "json"}:
        raise UsageError(
            f"--json and --output {options.output} contradict each other", hint="use one of them"
        )
    wanted = "json" if options.as_json else options.output or environ.get("QCTL_OUTPUT") or "table"
    for mode in _MODES:
        if mode == wanted:
            return mode
    # Typer has checked the value of --output, so the wrong value is from the variable.
    raise UsageError(
        f"QCTL_OUTPUT is {wanted!r}, which is not an output format",
        hint=f"set it to one of: {', '.join(_MODES)}",
    )
