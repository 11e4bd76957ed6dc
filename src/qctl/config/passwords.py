"""Reads a Redis password from a file or a command, never shows it, and adds it to a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from qctl.errors import FailedError, UsageError

# Long enough for the operator to unlock a key ring.
COMMAND_TIMEOUT_S = 60.0
_MAX_FILE_CHARS = 64 * 1024
# Only the end of a failed command's stderr is shown, because the cause is usually at the end.
_MAX_STDERR_BYTES = 2000
_MAX_STDERR_LINES = 5


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Where a password comes from: a file or a command.

    Args:
        setting: the setting's name without ``_file`` or ``_command``, for messages.
        file: its first line is the password.
        command: a program and its arguments; the first line that it prints is the password.
    """

    file: Path | None = None
    command: tuple[str, ...] = ()
    setting: str = "password"

    def __str__(self) -> str:
        # Do not show the arguments: an operator may have put the password there by mistake.
        return f"from {self.file}" if self.file else f"from the command {self.command[0]}"

    def read(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Read the password.

        Raises:
            UsageError: the file cannot be read, the command cannot start, or the password is empty.
            FailedError: the command failed, timed out, or printed something that is not UTF-8. The
                message quotes stderr, unless stderr repeats a line of stdout.
        """
        text = self._file_text(self.file) if self.file else self._output(timeout_s)
        password = text.partition("\n")[0].rstrip("\r")
        if not password:
            raise UsageError(
                f"the {self.setting} {self} is empty",
                hint="the first line of the file or of the output must be the password",
            )
        return password

    def _file_text(self, path: Path) -> str:
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(_MAX_FILE_CHARS)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            if isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError):
                reason = str(error)
            raise UsageError(
                f"the password file {path} cannot be read",
                why=str(reason),
                hint=f"correct {self.setting}_file; `qctl config view` shows where it is set",
            ) from None

    def _output(self, timeout_s: float) -> str:
        import subprocess  # noqa: PLC0415 - rarely needed

        failure = ""
        try:
            with subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                try:
                    output, stderr = process.communicate(timeout=timeout_s)
                except subprocess.TimeoutExpired as late:
                    # Do not read to the end: a child of the command may keep the pipe open.
                    process.kill()
                    output, stderr = late.output or b"", late.stderr or b""
                    failure = f"took longer than {timeout_s:g} s"
                except BaseException:
                    # A SIGTERM to qctl does not reach the command, so end the command here.
                    process.kill()
                    process.wait()
                    raise
        except OSError as error:
            raise UsageError(
                f"the {self.setting}_command {self.command[0]!r} cannot be started",
                why=str(error.strerror),
                hint=f"correct {self.setting}_command; `qctl config view` shows where it is set",
            ) from None
        if not failure and process.returncode:
            failure = f"failed with exit code {process.returncode}"
        try:
            text = str(output.decode())
        except UnicodeDecodeError:
            failure = failure or "printed something that is not UTF-8"
        if not failure:
            return text
        raise FailedError(
            f"the {self.setting}_command {self.command[0]!r} {failure}",
            why=_stderr_to_show(stderr, output),
            hint="run it yourself to see all its output; here, output that may contain the "
            "password is hidden",
        )


def _stderr_to_show(stderr: bytes, stdout: bytes) -> str:
    """The last lines of stderr; "" if stderr repeats a line of stdout.

    The repeated line may be the password.
    """
    text = stderr[-_MAX_STDERR_BYTES:].decode(errors="replace").strip()
    secrets = [line.strip() for line in stdout.splitlines() if line.strip()]
    if any(secret in stderr for secret in secrets):
        return ""
    return "\n".join(text.splitlines()[-_MAX_STDERR_LINES:])


def with_password(url: str, password: str) -> str:
    """A Redis URL with a password added.

    Raises:
        UsageError: the URL already has a password, or is an ``embedded:`` URL, which takes none.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise UsageError(
            "the Redis URL takes no password",
            # Do not show the URL: a malformed one may contain a password.
            why="only a URL with :// takes a password, for example redis://host",
            hint="remove the password_file or password_command; see `qctl config view`",
        )
    ends = [index for mark in "/?#" if (index := rest.find(mark)) >= 0]
    netloc, path = rest[: min(ends, default=len(rest))], rest[min(ends, default=len(rest)) :]
    user, _, hosts = netloc.rpartition("@")
    if ":" in user:
        raise UsageError(
            "both the Redis URL and the config have a password",
            hint="remove one of them; `qctl config view` shows where each is set",
        )
    return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}{path}"


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """A Redis URL with query parameters added.

    Raises:
        UsageError: the URL already has one of ``parameters``.
    """
    if not parameters:
        return url
    present = {part.partition("=")[0] for part in url.partition("?")[2].split("&")}
    if twice := sorted(present.intersection(parameters)):
        raise UsageError(
            f"both the Redis URL and the config have {', '.join(twice)}",
            hint="remove one of them; `qctl config view` shows where each is set",
        )
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, quote_via=quote)}"
