"""Build the commands that qctl recommends.

A recommended command must reach the same Redis and prefix as the command that recommends it. The
environment and the config files apply to both; flags do not, so they are repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from qctl.config.prefixes import Prefixes, escaped
from qctl.config.settings import Settings
from qctl.connection.address import EMBEDDED, Address, parse_url
from qctl.errors import UnreachableError
from qctl.wire.keys import QueueKeys, common_prefix

# Options of the recommended commands. Other words that begin with a dash are names.
_OPTIONS = {"--state", "--wait", "--then-restart", "--target", "--timeout", "--ignore-others"}
_OPTIONS |= {"--include-others", "--full", "--keep-paused", "--for", "--where", "--since"}
_OPTIONS |= {"--concurrency", "--problems"}
_REDIS_PORT = 6379
# The settings of the command that runs; one process runs one command.
_settings: Settings | None = None


@contextlib.contextmanager
def commands_like(settings: Settings) -> Iterator[None]:
    """In the ``with`` block, recommended commands repeat the settings that were given as flags."""
    global _settings  # noqa: PLW0603
    _settings = settings
    try:
        yield
    finally:
        _settings = None


def command(prefix: str | None, verb: str, *words: str, redis: str = "") -> str:
    """A qctl command to show to the operator, quoted for the shell.

    Args:
        prefix: the key prefix of the queues; None for the prefixes in force.
        verb: one word or two, such as ``jobs retry``.
        words: names and options.
        redis: the URL of another Redis, without its password; empty for the Redis in use.
    """
    options = []
    prefixes = _settings.prefixes if _settings is not None else Prefixes()
    if prefix is None:
        for pattern in prefixes.patterns if _by_flag("redis.prefix") else ():
            options += ["--prefix", pattern]
    elif _by_flag("redis.prefix") or prefix != prefixes.single:
        options += ["--prefix", escaped(prefix)]
    if _settings is not None and _settings.context and _by_flag("context"):
        options += ["--context", _settings.context]
    if _settings is not None and not redis and _by_flag("redis.url"):
        url = _settings.redis_url
        # ``parse_url`` cannot read the URL of an embedded server, which has no password to hide.
        redis = url if url.startswith(EMBEDDED) else str(parse_url(url))
    if redis:
        options += ["--redis", redis]
    if _by_flag("kubernetes.context") and any(word.startswith("kubernetes:") for word in words):
        options += ["--kube-context", kube_context()]
    # Names that would be taken for options come last, after a ``--``.
    dashed = [word for word in words if word.startswith("-") and word not in _OPTIONS]
    plain = [word for word in words if word not in dashed]
    ordered = [*plain, *options, *(["--", *dashed] if dashed else [])]
    return " ".join(["qctl", verb, *map(quoted, ordered)])


def command_on(queues: Sequence[QueueKeys], verb: str, *options: str) -> str:
    """``command`` on these queues, which may have several prefixes."""
    prefix = common_prefix(queues)
    words = [keys.full_name if prefix is None else keys.name for keys in queues]
    return command(prefix, verb, *words, *options)


def kube_context() -> str:
    """The kubeconfig context in the settings of this command; "" if there is none."""
    return _settings.kube_context if _settings is not None else ""


def redis_cli(address: Address, node: tuple[str, int] | None, *words: str) -> str:
    """A redis-cli command to show to the operator, without a password.

    Args:
        node: host and port of one master of a cluster; None for the server in use. With sentinels,
            the server in use is the master that they name.
    """
    options = ["--tls"] * address.tls
    if node is None and address.mode == "sentinel":
        from qctl.connection.sentinel import find_master  # noqa: PLC0415 - redis-py costs 110 ms

        try:
            node = find_master(address)
        except UnreachableError:
            # Advice must not fail, so the operator must fill in the host of the master.
            node = ("MASTER", _REDIS_PORT)
    if node is None and address.mode == "cluster" and "--cluster" not in words:
        options.append("-c")
    host, port = node or (address.host, address.port)
    if address.unix_path:
        options += ["-s", address.unix_path]
    # With --cluster, the address of a node is already among the words.
    elif "--cluster" not in words:
        options += ["-h", host] * (host != "localhost")
        options += ["-p", str(port)] * (port != _REDIS_PORT)
    if address.db:
        options += ["-n", str(address.db)]
    if address.username:
        options += ["--user", address.username]
    if address.password is not None:
        options.append("--askpass")
    return " ".join(["redis-cli", *map(quoted, [*options, *words])])


def _by_flag(setting: str) -> bool:
    origin = _settings.origins.get(setting) if _settings is not None else None
    return origin is not None and origin.kind == "flag"


def quoted(word: str) -> str:
    """A word quoted for bash or zsh, with control and invisible characters escaped."""
    if word.isprintable():
        from shlex import quote  # noqa: PLC0415 - only where there is something to recommend

        return quote(word)
    special = {"\\": "\\\\", "'": "\\'"}
    spelled = "".join(
        special.get(char, char) if char.isprintable() else _spelled(char) for char in word
    )
    return f"$'{spelled}'"


def _spelled(char: str) -> str:
    # ``\\xNN`` means the same byte in every locale of the shell; ``\\uNNNN`` does not.
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
