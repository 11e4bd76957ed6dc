"""Where a supervisord listens: parses a URL, or finds the socket of this host's supervisord."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from qctl.errors import UsageError

_PORT = 9001
# Where supervisord's packages and its sample configuration put the socket.
_SOCKETS = (
    Path("/run/supervisor.sock"),
    Path("/var/run/supervisor.sock"),
    Path("/run/supervisord.sock"),
    Path("/tmp/supervisor.sock"),  # noqa: S108 - the place in supervisord's sample configuration
    Path("/usr/local/var/run/supervisor.sock"),
)
_CONFIGS = (Path("/etc/supervisor/supervisord.conf"), Path("/etc/supervisord.conf"))
_EXAMPLE = "unix:///run/supervisor.sock or http://user:password@127.0.0.1:9001"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a supervisord listens; ``str()`` gives its URL without the password.

    Args:
        socket: the unix socket; None for HTTP.
        host, port: for HTTP.
        user, password: what supervisord asks for; "" if nothing.
    """

    socket: Path | None = None
    host: str = ""
    port: int = _PORT
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        if self.socket is not None:
            return f"unix://{user}{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{user}{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Parse the URL of a supervisord on this host.

    Raises:
        UsageError: the URL cannot be used. The message does not repeat the URL, which may contain
            a password.
    """
    try:
        return _parse(url)
    except ValueError as error:
        # Do not chain the error: its text may contain a part of the URL.
        why = str(error) if isinstance(error, _NotUsableError) else "it is malformed"
    raise UsageError(
        "supervisord.url is not the URL of a supervisord on this host",
        why=why,
        hint=f"for example {_EXAMPLE}; special characters in a password need %XX",
    )


class _NotUsableError(ValueError):
    """Why a URL cannot be used; the text repeats nothing of the URL."""


def _parse(url: str) -> Address:
    parts = urlsplit(url)
    if parts.query or parts.fragment or "@" in parts.path:
        # If the password has an unescaped /, ? or #, a part of the password becomes the path here.
        raise _NotUsableError("a special character in it needs %XX")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if not path or "\0" in path or parts.hostname:
            raise _NotUsableError("unix:// needs the socket's absolute path")
        return Address(Path(path), user=user, password=password)
    if parts.scheme != "http":
        raise _NotUsableError("it must start with unix:// or http://")
    host = parts.hostname or ""
    if not _is_loopback(host):
        raise _NotUsableError("qctl must run where the processes run: the host must be 127.0.0.1")
    return Address(None, host, parts.port or _PORT, user, password)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def find_socket() -> Path | None:
    """The unix socket of this host's supervisord, in its usual places; None if there is none."""
    found = next(filter(_is_socket, _SOCKETS), None)
    return found or next(filter(_is_socket, filter(None, map(_configured, _CONFIGS))), None)


def _is_socket(path: Path) -> bool:
    try:
        status = path.stat()
        # In a folder such as /tmp, any user can create a socket and pretend to be supervisord.
        is_open = path.parent.stat().st_mode & stat.S_IWOTH
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(status.st_mode) and (not is_open or status.st_uid in {0, os.geteuid()})


def _configured(config: Path) -> Path | None:
    """The socket that a supervisord config file names; None if unreadable or without a socket."""
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = config.read_text(encoding="utf-8")
    if not text:
        return None
    import configparser  # noqa: PLC0415 - few hosts have such a file

    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    with contextlib.suppress(configparser.Error):
        parser.read_string(text)
        name = parser.get("unix_http_server", "file", fallback="")
        return Path(name.replace("%(here)s", str(config.parent))) if name else None
    return None
