"""The password of a Redis, from a file or a command; never from a flag, never shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qctl.errors import FailedError, UsageError

# A person may have to unlock a key ring meanwhile.
COMMAND_TIMEOUT_S = 60.0
_MOST_BYTES = 64 * 1024
# Of what a failed command says on stderr: its end, which names the cause.
_MOST_SAID = 2000
_MOST_LINES = 5


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """What gives a password; one of the two.

    Args:
        file: its first line is the password.
        command: a program and its arguments; the first line that it prints is the password.
    """

    file: Path | None = None
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        # The arguments name the secret's place, and by mistake the secret itself.
        return f"from {self.file}" if self.file else f"from the command {self.command[0]}"

    def read(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """The password.

        Raises:
            UsageError: the file cannot be read, the program does not exist, or it is empty.
            FailedError: the command failed or took too long; with what it said on stderr, never
                with what it printed.
        """
        text = self._file_text(self.file) if self.file else self._output(timeout_s)
        password = text.partition("\n")[0].rstrip("\r")
        if not password:
            raise UsageError(
                f"the password {self} is empty", hint="its first line has to be the password"
            )
        return password

    def _file_text(self, path: Path) -> str:
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(_MOST_BYTES)
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
                    output, said = process.communicate(timeout=timeout_s)
                except subprocess.TimeoutExpired as late:
                    # Its output is not waited for: a grandchild may hold that open for ever.
                    process.kill()
                    output, said = late.output or b"", late.stderr or b""
                    failure = f"took longer than {timeout_s:g} s"
                except BaseException:
                    # SIGTERM for qctl alone; nobody else would end what waits for an answer.
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
            failure = failure or "printed what is not UTF-8"
        if not failure:
            return text
        raise FailedError(
            f"the password_command {self.command[0]!r} {failure}",
            why=_end_of(said, output),
            hint="run it yourself; qctl shows what it says on stderr, never what it prints",
        )


def _end_of(said: bytes, printed: bytes) -> str:
    """The last of what a command said on stderr; nothing if that has the secret in it."""
    lines = said[-_MOST_SAID:].decode(errors="replace").strip().splitlines()[-_MOST_LINES:]
    secrets = [line.strip() for line in printed.splitlines() if line.strip()]
    return "" if any(secret in said for secret in secrets) else "\n".join(lines)


def with_password(url: str, password: str) -> str:
    """A Redis URL with a password put into it.

    Raises:
        UsageError: the URL has one already, or its kind has none.
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
            "the Redis URL has a password, and so has the config beside it",
            hint="remove one of them: qctl config view",
        )
    return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}{path}"
