"""The standard streams of a command; tests pass streams of their own."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO, cast

from qctl.errors import FailedError

_MIN_WIDTH = 20


class OutputError(FailedError):
    """The output could not be written, for example to a full disk."""


class _Output:
    """Standard output. If writing fails, it raises an ``OutputError``.

    If the reader is gone, it raises a ``BrokenPipeError`` instead.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _output_error(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _output_error(error) from error


def _output_error(error: OSError) -> Exception:
    # A reader that stops reading, such as `head`, is not a failure of qctl.
    if isinstance(error, BrokenPipeError):
        return error
    return OutputError(
        "the output cannot be written",
        why=error.strerror or str(error),
        hint="free disk space, or redirect the output; the output so far may be incomplete",
    )


@dataclass(frozen=True, slots=True)
class Streams:
    """The standard streams, and whether each is a terminal.

    Args:
        width: the terminal's width in cells; None to ask the terminal each time.
    """

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    stdin_is_terminal: bool = False
    stdout_is_terminal: bool = False
    stderr_is_terminal: bool = False
    width: int | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @classmethod
    def standard(cls) -> Streams:
        """The streams of this process; the null device replaces a closed stream."""
        stdin = sys.stdin or _null("r")
        stdout = sys.stdout or _null("w")
        stderr = sys.stderr or _null("w")
        for stream in (stdout, stderr):
            if isinstance(stream, io.TextIOWrapper):
                # Writing a character that the encoding lacks, such as an ellipsis, must not fail.
                stream.reconfigure(errors="backslashreplace")
        # Typer prints help to sys.stdout, so writing there must raise the same errors.
        sys.stdout = stdout = cast("TextIO", _Output(stdout))
        return cls(stdin, stdout, stderr, stdin.isatty(), stdout.isatty(), stderr.isatty())

    def is_terminal(self, stream: TextIO) -> bool:
        """Whether ``stream``, which is ``stdout`` or ``stderr``, is a terminal."""
        return self.stderr_is_terminal if stream is self.stderr else self.stdout_is_terminal

    @property
    def terminal_width(self) -> int:
        """The width of the terminal in cells."""
        import shutil  # noqa: PLC0415 - not before a line is written

        return max(self.width or shutil.get_terminal_size().columns, _MIN_WIDTH)

    @property
    def is_dumb(self) -> bool:
        """Whether the terminal obeys no escape sequences."""
        return self.environ.get("TERM") in {"dumb", "unknown"}

    def may_colour(self, stream: TextIO) -> bool:
        """Whether an output stream may be coloured. Does not consider ``--no-color``."""
        return self.is_terminal(stream) and not self.is_dumb and not self.environ.get("NO_COLOR")

    def discard_typed(self) -> None:
        """Discard what was typed on the terminal and not read yet.

        Text that was typed before a question, for example during a long count, is no answer to it.
        """
        if not self.stdin_is_terminal:
            return
        import termios  # noqa: PLC0415 - only for a question

        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self.stdin, termios.TCIFLUSH)


def _null(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123
