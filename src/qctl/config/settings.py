"""Settings: flag > environment > project ``qctl.toml`` > user config > default.

The chosen context wins over the other tables of the files. If a flag chose the context, the context
also wins over the environment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qctl.config.commands import AppCommands, find_commands
from qctl.config.credentials import find_parameters, find_password, require_tls
from qctl.config.files import (
    HINT,
    Layer,
    Lookup,
    Origin,
    context_names,
    exposed_passwords,
    layers_of,
    read_layers,
    unknown_keys,
    user_config_path,
)
from qctl.config.groups import find_groups
from qctl.config.guards import Guards, find_guards
from qctl.config.passwords import PasswordSource, with_parameters, with_password
from qctl.config.prefixes import EVERY_PREFIX, Prefixes, only, parse_prefixes, split_list
from qctl.connection.address import DEFAULT_URL, SECRET_PARAMETERS, parse_url
from qctl.durations import parse_duration_s
from qctl.errors import NotFoundError, UsageError

# BullMQ's default. The limit is an option of the workers, and Redis does not store it.
DEFAULT_MAX_STALLED_COUNT = 1
# How long qctl watches whether new processes and workers stay up: some apps crash seconds after
# their start, when they open their second connection or run their first job.
DEFAULT_WATCH_S = 5.0
_MIN_WATCH_S = 1.0
_MAX_WATCH_S = 3600.0


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """A managed process and the queues it serves, as configured under ``[targets.NAME]``."""

    name: str
    process: str
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one command.

    Args:
        redis_url: where Redis is; may contain a password. To connect, use ``full_url``.
        prefixes: BullMQ's key prefixes that a command works on.
        max_stalled_count: the workers' ``maxStalledCount``: a job that stalls more often fails.
        pm2_home: PM2's folder (``PM2_HOME``, else ``~/.pm2``).
        supervisord_url: where supervisord listens; may contain a password. "" for its usual places.
        kube_context: the context of the kubeconfig; "" for its current context.
        watch_s: how long the new workers must stay up after a restart, in seconds.
        state_home: qctl's folder for state (``$XDG_STATE_HOME/qctl``).
        targets: processes with their queues, by name.
        groups: for the name of each group, its targets, or the error that says why the group cannot
            be used; see ``group``.
        commands: the apps that are managed by commands in the config.
        contexts: names of the contexts in the config files.
        context: the chosen context.
        guards: what keeps commands from writing.
        password_source: the file or command that gives the password, or None.
        url_parameters: what the config adds to the URL; secrets are read when a command connects.
        origins: where each value comes from, by dotted key, e.g. ``redis.url``.
        files: the config files in order of precedence.
        warnings: about the config files and the flags.
    """

    redis_url: str = field(default=DEFAULT_URL, repr=False)
    prefixes: Prefixes = field(default_factory=Prefixes)
    max_stalled_count: int = DEFAULT_MAX_STALLED_COUNT
    pm2_home: Path = Path("~/.pm2")
    supervisord_url: str = field(default="", repr=False)
    kube_context: str = ""
    watch_s: float = DEFAULT_WATCH_S
    state_home: Path = Path("~/.local/state/qctl")
    targets: tuple[TargetConfig, ...] = ()
    groups: Mapping[str, tuple[str, ...] | UsageError] = field(default_factory=dict)
    commands: tuple[AppCommands, ...] = ()
    contexts: tuple[str, ...] = ()
    context: str | None = None
    guards: Guards = field(default_factory=Guards)
    password_source: PasswordSource | None = None
    url_parameters: Mapping[str, str | PasswordSource] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The key prefix, for commands that work under one prefix at a time.

        Raises:
            UsageError: the settings have several prefixes, or a pattern.
        """
        if (prefix := self.prefixes.single) is None:
            raise UsageError(
                f"this works under one key prefix, not under {str(self.prefixes)!r}",
                hint="name one prefix with --prefix",
            )
        return prefix

    def prefix_of(self, queue: str) -> str:
        """The one key prefix that a queue with this name has, whether the queue exists or not.

        Raises:
            UsageError: several prefixes are possible.
        """
        possible = self.prefixes.of_queue(queue)
        if len(possible) != 1 or self.prefixes.needs_scan:
            raise UsageError(
                f"the queue {queue!r} needs one key prefix, not {str(self.prefixes)!r}",
                hint="name one prefix, or one with $QUEUE in place of the queue's name",
            )
        return possible[0]

    def group(self, name: str) -> tuple[str, ...] | None:
        """The targets of a group; None if there is no group of this name.

        Raises:
            UsageError: the group is not valid.
        """
        members = self.groups.get(name)
        if isinstance(members, UsageError):
            raise members
        return members

    def under(self, prefix: str) -> Settings:
        """The same settings with one key prefix."""
        return replace(self, prefixes=only(prefix))

    def full_url(self) -> str:
        """The URL with passwords and parameters. Reads password files and runs password commands.

        Raises:
            UsageError, FailedError: a password or parameter cannot be read or added to the URL.
        """
        url = self.redis_url
        if self.password_source is not None:
            url = with_password(url, self.password_source.read())
        if self.url_parameters:
            require_tls(parse_url(url).tls, self.url_parameters)
        return with_parameters(
            url,
            {
                name: value if isinstance(value, str) else value.read()
                for name, value in self.url_parameters.items()
            },
        )


def load_settings(
    *,
    redis_url: str | None = None,
    prefixes: Sequence[str] = (),
    all_prefixes: bool = False,
    context: str | None = None,
    kube_context: str | None = None,
    environ: Mapping[str, str],
) -> Settings:
    """Settings from flags, the environment and the config files.

    Args:
        prefixes: prefixes or patterns, as ``--prefix`` takes them.

    Raises:
        UsageError: a config file cannot be read, a value is not valid, or a guard is misspelt.
        NotFoundError: the context is not defined.
    """
    files = read_layers(environ)
    flags = _given(
        "flag",
        {
            "redis.url": ["--redis"],
            "redis.prefix": ["--prefix", "--all-prefixes"],
            "context": ["--context"],
            "kubernetes.context": ["--kube-context"],
        },
        {
            "--redis": redis_url,
            "--prefix": list(prefixes),
            "--all-prefixes": list(EVERY_PREFIX.patterns) if all_prefixes else None,
            "--context": context,
            "--kube-context": kube_context,
        },
    )
    variables = _given(
        "environment",
        {
            "redis.url": ["QCTL_REDIS_URL", "REDIS_URL"],
            "redis.prefix": ["QCTL_PREFIX"],
            "redis.max_stalled_count": ["QCTL_MAX_STALLED_COUNT"],
            "redis.password_file": ["QCTL_REDIS_PASSWORD_FILE"],
            "redis.tls.ca_file": ["QCTL_REDIS_TLS_CA_FILE"],
            "redis.tls.cert_file": ["QCTL_REDIS_TLS_CERT_FILE"],
            "redis.tls.key_file": ["QCTL_REDIS_TLS_KEY_FILE"],
            "redis.tls.key_password_file": ["QCTL_REDIS_TLS_KEY_PASSWORD_FILE"],
            "redis.tls.server_name": ["QCTL_REDIS_TLS_SERVER_NAME"],
            "redis.sentinel.username": ["QCTL_REDIS_SENTINEL_USERNAME"],
            "redis.sentinel.password_file": ["QCTL_REDIS_SENTINEL_PASSWORD_FILE"],
            "context": ["QCTL_CONTEXT"],
            "pm2.home": ["PM2_HOME"],
            "supervisord.url": ["QCTL_SUPERVISORD_URL"],
            "drain.watch": ["QCTL_WATCH"],
            "state_home": ["XDG_STATE_HOME"],
        },
        environ,
    )
    contexts = context_names(files)
    lookup = Lookup([flags, variables, *files])
    chosen = lookup.text("context")
    if chosen:
        chosen_layers = layers_of(chosen, files)
        if not chosen_layers:
            raise NotFoundError(
                f"no context named {chosen!r}",
                why=f"defined contexts: {', '.join(contexts) or 'none'}",
                hint=f"define [contexts.{chosen}] in {user_config_path(environ)}",
            )
        by_flag = lookup.origins["context"].kind == "flag"
        above = [*chosen_layers, variables] if by_flag else [variables, *chosen_layers]
        lookup = Lookup([flags, *above, *files], lookup.origins)
    url = lookup.text("redis.url") or DEFAULT_URL
    guards = find_guards(url, chosen, lookup, files)
    lookup.find("state_home")  # only records the origin
    targets = _targets(lookup)
    groups = find_groups(lookup.layers, [target.name for target in targets])
    return Settings(
        redis_url=url,
        prefixes=_prefixes(lookup),
        max_stalled_count=_max_stalled_count(lookup.find("redis.max_stalled_count")),
        pm2_home=Path(lookup.text("pm2.home") or "~/.pm2").expanduser(),
        supervisord_url=lookup.text("supervisord.url") or "",
        kube_context=lookup.text("kubernetes.context") or "",
        watch_s=_watch_s(lookup),
        state_home=state_home(environ),
        targets=targets,
        groups=groups,
        commands=find_commands(lookup.layers, lookup.origins),
        contexts=contexts,
        context=chosen,
        guards=guards,
        password_source=find_password(lookup),
        url_parameters=find_parameters(lookup),
        origins=lookup.origins,
        files=tuple(file.path for file in files),
        warnings=(
            *unknown_keys(files),
            *(
                f"{error.what}; the group cannot be used"
                for error in groups.values()
                if isinstance(error, UsageError)
            ),
            *(warning for layer in (*files, variables) for warning in exposed_passwords(layer)),
            *_flag_warnings(redis_url, chosen, guards.url_override),
        ),
    )


def _given(kind: Any, names: Mapping[str, list[str]], values: Mapping[str, Any]) -> Layer:
    """A layer of flags or variables. If several ``names`` of a key are set, the first wins."""
    nested: dict[str, Any] = {}
    origins = {}
    for key, choices in names.items():
        name = next((name for name in choices if values.get(name)), None)
        if name is not None:
            *tables, last = key.split(".")
            place = nested
            for table in tables:
                place = place.setdefault(table, {})
            place[last] = values[name]
            origins[key] = Origin(kind, name)
    return Layer(nested, origins)


def _has_secret(url: str) -> bool:
    """Whether a Redis URL holds a password."""
    if "@" not in url and not any(name in url for name in SECRET_PARAMETERS):
        return False
    address = parse_url(url)
    secrets = (address.password, address.sentinel_password, address.tls_options.get("ssl_password"))
    return any(secrets)


def _flag_warnings(
    redis_url: str | None, chosen: str | None, url_override: str | None
) -> Iterator[str]:
    if url_override:
        yield f"context {chosen} has its own Redis, but {url_override} gives another"
    with contextlib.suppress(UsageError):
        if redis_url and _has_secret(redis_url):
            yield (
                "--redis has a password, which every user of this machine can read while the "
                "command runs; use QCTL_REDIS_URL or a config file instead"
            )


def state_home(env: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/qctl``, by default ``~/.local/state/qctl``."""
    base = env.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "qctl"


def _prefixes(lookup: Lookup) -> Prefixes:
    value = lookup.find("redis.prefix")
    if value is None:
        return Prefixes()
    origin = lookup.origins["redis.prefix"]
    if isinstance(value, str):
        value = split_list(value) if origin.kind == "environment" else [value]
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UsageError(
            "config: prefix must be a string or a list of strings",
            why=f"the value in {origin} is neither",
            hint=HINT,
        )
    return parse_prefixes(value)


def _max_stalled_count(value: object) -> int:
    if value is None:
        return DEFAULT_MAX_STALLED_COUNT
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if count < 0:
        raise UsageError(
            f"max_stalled_count must be a whole number of 0 or more, not {value!r}",
            hint="set QCTL_MAX_STALLED_COUNT to the workers' maxStalledCount",
        )
    return count


def _watch_s(lookup: Lookup) -> float:
    text = lookup.text("drain.watch")
    if text is None:
        return DEFAULT_WATCH_S
    origin = lookup.origins["drain.watch"]
    name = origin.name if origin.kind == "environment" else "config: drain.watch"
    return parse_duration_s(text, name, min_s=_MIN_WATCH_S, max_s=_MAX_WATCH_S, example="10s")


def _targets(lookup: Lookup) -> tuple[TargetConfig, ...]:
    # Targets keep the order of the files; the file with the lowest precedence comes first.
    names = [name for layer in reversed(lookup.layers) for name in layer.table("targets")]
    targets = []
    for name in dict.fromkeys(names):
        found: dict[str, Any] = {}
        for layer in lookup.layers:
            entry = layer.table("targets").get(name)
            for key, value in entry.items() if isinstance(entry, dict) else ():
                if key not in found:
                    found[key] = value
                    lookup.origins.setdefault(
                        f"targets.{name}", layer.origin(f"targets.{name}.{key}")
                    )
        process, queues = found.get("process"), found.get("queues", [])
        if (
            not process
            or not isinstance(process, str)
            or not isinstance(queues, list)
            or not all(isinstance(queue, str) for queue in queues)
        ):
            raise UsageError(
                f'config: [targets.{name}] needs process = "MANAGER:NAME" and queues = ["…"]',
                hint=HINT,
            )
        targets.append(TargetConfig(name, process, tuple(queues)))
    return tuple(targets)
