"""Runs a command for a tool call, and reads its outcome."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import anyio
from anyio import to_thread

from qctl.cli.mcp.bounds import bounded
from qctl.errors import ExitStatus, FailedError, QctlError, UsageError
from qctl.output.text import visible, without_passwords

# Commands that run at the same time; more calls wait.
MAX_RUNNING = 8
# The largest output of a command, in bytes. A larger output gives no result.
MAX_OUTPUT = 32_000_000
# How many bytes of a command's stderr are read.
_MAX_ERRORS = 20_000
# How many lines of remarks are kept.
_MAX_REMARKS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command has answered.

    Args:
        exit_code: see docs/cli.md.
        result: its JSON; None if there is none, or if it is too large.
        error: ``what``, ``why`` and ``hint``; None if it reported no error.
        remarks: what else it wrote on stderr, and what was cut from the result.
        is_cut: whether the result is only a part.
    """

    exit_code: int
    result: Any
    error: Mapping[str, str] | None
    remarks: Sequence[str]
    is_cut: bool = False


class Runner:
    """Runs commands, each in a process of its own.

    Args:
        options: added to every command, for the connection.
        environ: the environment variables of the processes.
        known: remarks that every command repeats; no outcome contains them.
    """

    def __init__(
        self, options: Sequence[str], environ: Mapping[str, str], known: Sequence[str] = ()
    ) -> None:
        self._options = options
        # The output is always JSON. With QCTL_DEBUG, tracebacks would be among the remarks.
        dropped = {"QCTL_OUTPUT", "QCTL_DEBUG"}
        self._environ = {name: text for name, text in environ.items() if name not in dropped}
        self._known = frozenset(known)
        self._limiter = anyio.CapacityLimiter(MAX_RUNNING)

    async def run(self, words: Sequence[str]) -> Outcome:
        """Run a command; if the call is cancelled, the command gets SIGTERM and is waited for.

        Raises:
            UsageError, FailedError: the command cannot be started.
        """
        # Files and not pipes: a program that outlives the command may hold a pipe open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            async with self._limiter:
                code = await self._finish(self._start(words, out, err))
            return self._outcome(code, out, err)

    def _start(
        self, words: Sequence[str], out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "qctl.cli.mcp.child"]
        try:
            # The command gets a session of its own. A client may send SIGKILL to the server's
            # process group soon after SIGTERM, and a drain needs time to put everything back.
            return subprocess.Popen(
                [*command, *words, *self._options, "--json"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=self._environ,
                start_new_session=True,
            )
        except ValueError as error:
            raise UsageError("an argument cannot be given to a command", why=str(error)) from error
        except OSError as error:
            raise FailedError("qctl could not be started", why=str(error)) from error

    @staticmethod
    async def _finish(process: subprocess.Popen[bytes]) -> int:
        try:
            code: int = await to_thread.run_sync(process.wait, abandon_on_cancel=True)
        finally:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            process.stdin.close()
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(process.wait)
        return code

    def _outcome(self, code: int, out: IO[bytes], err: IO[bytes]) -> Outcome:
        lines = [line for line in _text(err, _MAX_ERRORS).splitlines() if line.strip()]
        remarks, error = _error_of(lines)
        remarks = [line for line in remarks if line not in self._known][:_MAX_REMARKS]
        result, cuts = _result_of(_text(out, MAX_OUTPUT + 1))
        remarks += cuts
        if code < 0:
            error = _as_dict(FailedError(f"the command was ended by signal {-code}"))
            code = ExitStatus.FAILED
        elif code and error is None and result is None:
            error = _as_dict(FailedError("the command failed", why="\n".join(remarks)))
        return Outcome(code, result, error, remarks, is_cut=bool(cuts))


def failed(error: QctlError) -> Outcome:
    """The outcome of a call that runs no command."""
    return Outcome(error.exit_status, None, _as_dict(error), ())


def _as_dict(error: QctlError) -> dict[str, str]:
    texts = {"what": error.what, "why": error.why, "hint": error.hint}
    return {name: visible(without_passwords(text)) for name, text in texts.items()}


def _error_of(lines: Sequence[str]) -> tuple[list[str], dict[str, str] | None]:
    """Divide stderr into remarks and the error at its end; see ``QctlError.lines``."""
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return [*lines], None
    what, *why = lines[starts[-1] :]
    hint = why.pop().removeprefix("try: ") if why and why[-1].startswith("try: ") else ""
    error = {"what": what.removeprefix("error: "), "why": "\n".join(why), "hint": hint}
    return [*lines[: starts[-1]]], error


def _result_of(text: str) -> tuple[Any, list[str]]:
    """The JSON of a command, and what is missing from it."""
    if len(text) > MAX_OUTPUT:
        return None, ["the output of the command is too large to be read"]
    if not text.strip():
        return None, []
    try:
        return bounded(json.loads(text))
    except (ValueError, RecursionError):
        return None, ["the output of the command cannot be read as JSON"]


def _text(file: IO[bytes], size: int) -> str:
    file.seek(0)
    return without_passwords(file.read(size).decode(errors="replace"))
