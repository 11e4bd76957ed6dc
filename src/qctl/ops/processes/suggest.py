"""The commands that an operator is told to type.

Typed as they stand, they must go to the Redis and the prefix that this command looked at. What the
environment and the config files say holds for them as well; flags do not, so those are repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qctl.config.settings import DEFAULT_PREFIX, Settings
from qctl.connection.address import parse_url

# What else the commands take that are recommended; other words that begin with a dash are names.
_OPTIONS = frozenset(
    {
        *("--state", "--wait", "--then-restart", "--target", "--timeout", "--ignore-others"),
        *("--full", "--keep-paused"),
    }
)
# Those of the command that runs, of which a process has one.
_typed: Settings | None = None


@contextlib.contextmanager
def commands_like(settings: Settings) -> Iterator[None]:
    """Meanwhile commands repeat the flags that ``settings`` come from."""
    global _typed  # noqa: PLW0603
    _typed = settings
    try:
        yield
    finally:
        _typed = None


def command(prefix: str, verb: str, *words: str, redis: str = "") -> str:
    """A qctl command to show to the operator, quoted for the shell.

    Args:
        prefix: of the queues that it is about.
        verb: one word or two.
        words: names and options.
        redis: the URL of another Redis than the one at hand; without its password.
    """
    options = []
    if _by_flag("redis.prefix") or prefix != (_typed.prefix if _typed else DEFAULT_PREFIX):
        options += ["--prefix", prefix]
    if _typed is not None and _typed.context and _by_flag("context"):
        options += ["--context", _typed.context]
    if _typed is not None and not redis and _by_flag("redis.url"):
        redis = str(parse_url(_typed.redis_url))
    if redis:
        options += ["--redis", redis]
    # Names that would be taken for options come last, after a ``--``.
    dashed = [word for word in words if word.startswith("-") and word not in _OPTIONS]
    plain = [word for word in words if word not in dashed]
    ordered = [*plain, *options, *(["--", *dashed] if dashed else [])]
    return " ".join(["qctl", verb, *map(quoted, ordered)])


def _by_flag(setting: str) -> bool:
    origin = _typed.origins.get(setting) if _typed is not None else None
    return origin is not None and origin.kind == "flag"


def quoted(word: str) -> str:
    """A word as one types it into bash or zsh, control and invisible characters spelled out."""
    if word.isprintable():
        from shlex import quote  # noqa: PLC0415 - only where there is something to recommend

        return quote(word)
    special = {"\\": "\\\\", "'": "\\'"}
    spelled = "".join(
        special.get(char, char) if char.isprintable() else _spelled(char) for char in word
    )
    return f"$'{spelled}'"


def _spelled(char: str) -> str:
    # The bytes as Redis has them, whatever the locale of the shell is.
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
