"""Runs the command-line tools of process managers, without a shell and with a time limit.

The output of a tool may contain the app's environment, including secrets. So an error here shows at
most one line of the tool's stderr, and nothing of the stdout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence

from qctl.errors import ManagerUnreachableError

# How long a tool may take to end when its answer is no longer needed.
_CLOSE_TIMEOUT_S = 5.0
_MAX_MESSAGE = 300
_MAX_STDERR = 64 * 1024


def run_tool(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] = {},
    with_stderr: bool = False,
    reason: Callable[[bytes], str] | None = None,
) -> str:
    """Run a tool to its end.

    Args:
        env: variables added to qctl's own environment.
        with_stderr: mix the tool's stderr into the result; a ToolFailedError then has no message.
        reason: finds the reason for a failure in the tool's stderr; by default its first line.

    Returns:
        the tool's stdout.

    Raises:
        ManagerUnreachableError: the tool could not be started, or did not end in time.
        ToolFailedError: the tool ended with another exit code than 0.
    """
    try:
        done = subprocess.run(
            argv,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_stderr else subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
    # The except blocks raise nothing. An error raised in them would have TimeoutExpired as its
    # context, and TimeoutExpired has the tool's output.
    except subprocess.TimeoutExpired:
        why = f"it did not end within {timeout_s:g} s"
    except OSError as error:
        is_there = shutil.which(argv[0]) is not None
        why = error.strerror or str(error) if is_there else f"there is no command {argv[0]}"
    else:
        if not done.returncode:
            return done.stdout.decode(errors="replace")
        raise ToolFailedError(argv, done.returncode, (reason or first_line)(done.stderr or b""))
    raise ManagerUnreachableError(f"`{shown(argv)}` gave no answer", why=why)


class ToolFailedError(ManagerUnreachableError):
    """A tool ended with another exit code than 0.

    Args:
        code: the tool's exit code; negative if a signal ended the tool.
        message: the reason, from the tool's stderr; "" if there is none.
    """

    def __init__(self, argv: Sequence[str], code: int, message: str) -> None:
        super().__init__(f"`{shown(argv)}` ended with code {code}", why=message)
        self.code = code
        self.message = message


class ToolCall:
    """A ``RestartCall`` that runs a tool in the background, with the tool's output hidden.

    The tool has a session of its own, so that Ctrl-C does not end it before the manager has the
    request.

    Raises:
        ManagerUnreachableError: the tool could not be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = {},
        *,
        stdin: int = subprocess.DEVNULL,
        cwd: str | None = None,
    ) -> None:
        self._argv = argv
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            self._process = subprocess.Popen(
                argv,
                env=_environment(env),
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                cwd=cwd,
            )
        except OSError as error:
            self._errors.close()
            raise ManagerUnreachableError(
                f"`{shown(argv)}` could not be started", why=error.strerror or str(error)
            ) from error
        except BaseException:
            self._errors.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the tool has not ended yet."""
        return self._process.poll() is None

    def error(self) -> str | None:
        """Why the tool failed; None while the tool runs, and after a success."""
        code = self._process.poll()
        if not code:
            return None
        ended = f"`{shown(self._argv)}` ended with code {code}"
        if self._errors.closed:
            return ended
        self._errors.seek(0)
        return self._message(self._errors.read(_MAX_STDERR)) or ended

    def _message(self, stderr: bytes) -> str:
        """The line of the error output that says why the tool failed; "" if there is none."""
        return first_line(stderr)

    def close(self) -> None:
        """Wait for the tool to end, and kill it after 5 s: the manager has the request by then."""
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class DetachedCall(ToolCall):
    """A tool that qctl never kills: it goes on when qctl no longer waits for it or has ended."""

    def close(self) -> None:
        """See ``RestartCall``; ``is_running`` can still be read afterwards."""
        self._errors.close()


class Refusal:
    """The ``RestartCall`` for a restart that qctl refuses to request."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def error(self) -> str:
        """The reason."""
        return self._reason

    def close(self) -> None:
        """Nothing to do."""


def first_line(stderr: bytes) -> str:
    """The first line with text in a tool's error output, without characters that do not print."""
    lines = stderr.decode(errors="replace").splitlines()
    return printable(next((line for line in lines if line.strip()), ""))


def printable(line: str) -> str:
    """A line for a message: shortened, and without characters that do not print."""
    return "".join(char for char in line if char.isprintable()).strip()[:_MAX_MESSAGE]


def shown(argv: Sequence[str]) -> str:
    """A call in short: the program, and the first argument that is not an option."""
    verb = next((word for word in argv[1:] if not word.startswith("-")), "")
    return f"{os.path.basename(argv[0])} {verb}".strip()  # noqa: PTH119 - argv[0] is a name


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # With LC_ALL, tools print English messages and dates, whatever the operator's language is.
    return {**os.environ, "LC_ALL": "C.UTF-8", **extra}
