"""The password of a Redis from a file or a command. It is never shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qctl.errors import FailedError, UsageError

# Long enough for a person to unlock a key ring.
COMMAND_TIMEOUT_S = 60.0
_MAX_FILE_BYTES = 64 * 1024
# How much of a failed command's stderr is shown: the end, which names the cause.
_MAX_STDERR_BYTES = 2000
_MAX_STDERR_LINES = 5


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Where a password comes from: a file or a command.

    Args:
        file: its first line is the password.
        command: a program and its arguments; the first line that it prints is the password.
    """

    file: Path | None = None
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        # Without the arguments, which may contain the secret by mistake.
        return f"from {self.file}" if self.file else f"from the command {self.command[0]}"

    def read(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Read the password.

        Raises:
            UsageError: the file cannot be read, the program does not exist, or its output is empty.
            FailedError: the command failed or timed out; the message quotes its stderr, never its
                stdout.
        """
        text = self._file_text(self.file) if self.file else self._output(timeout_s)
        password = text.partition("\n")[0].rstrip("\r")
        if not password:
            raise UsageError(
                f"the password {self} is empty", hint="its first line must be the password"
            )
        return password

    def _file_text(self, path: Path) -> str:
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(_MAX_FILE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageError(
                f"the password file {path} cannot be read",
                why=str(reason),
                hint="correct password_file: qctl config view",
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
                    # Do not wait for the end of its output: a grandchild may keep that open.
                    process.kill()
                    output, stderr = late.output or b"", late.stderr or b""
                    failure = f"took longer than {timeout_s:g} s"
                except BaseException:
                    # SIGTERM for qctl alone: nobody else would end the command.
                    process.kill()
                    process.wait()
                    raise
        except OSError as error:
            raise UsageError(
                f"the password_command {self.command[0]!r} cannot be started",
                why=str(error.strerror),
                hint="correct it: qctl config path",
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
            f"the password_command {self.command[0]!r} {failure}",
            why=_end_of(stderr, output),
            hint="run it yourself; qctl shows its stderr, never its output",
        )


def _end_of(stderr: bytes, stdout: bytes) -> str:
    """The last lines of a command's stderr; nothing if they contain a line of its output."""
    text = stderr[-_MAX_STDERR_BYTES:].decode(errors="replace").strip()
    secrets = [line.strip() for line in stdout.splitlines() if line.strip()]
    if any(secret in stderr for secret in secrets):
        return ""
    return "\n".join(text.splitlines()[-_MAX_STDERR_LINES:])


def with_password(url: str, password: str) -> str:
    """A Redis URL with a password added.

    Raises:
        UsageError: the URL has a password already, or is of a kind without one.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise UsageError(
            "this kind of Redis has no password",
            why=f"the URL is {scheme}",
            hint="remove password_file and password_command: qctl config view",
        )
    ends = [index for mark in "/?#" if (index := rest.find(mark)) >= 0]
    netloc, path = rest[: min(ends, default=len(rest))], rest[min(ends, default=len(rest)) :]
    user, _, hosts = netloc.rpartition("@")
    if ":" in user:
        raise UsageError(
            "both the Redis URL and the config have a password",
            hint="remove one of them: qctl config view",
        )
    return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}{path}"
