"""Reads settings in layers (flags, environment, config files), and warns about the files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qctl.connection.address import SECRET_PARAMETERS
from qctl.errors import UsageError
from qctl.similar import similar_names

# The keys outside of [contexts], with their tables; ``*`` stands for a name that the user chooses.
_KEYS = (
    "context",
    "read_only",
    "redis.url",
    "redis.prefix",
    "redis.max_stalled_count",
    "redis.password_file",
    "redis.password_command",
    "redis.tls.ca_file",
    "redis.tls.cert_file",
    "redis.tls.key_file",
    "redis.tls.key_password_file",
    "redis.tls.key_password_command",
    "redis.tls.server_name",
    "redis.sentinel.username",
    "redis.sentinel.password_file",
    "redis.sentinel.password_command",
    "pm2.home",
    "supervisord.url",
    "kubernetes.context",
    "drain.watch",
    "commands.*.status",
    "commands.*.restart",
    "commands.*.stop",
    "commands.*.start",
    "commands.*.grace",
    "commands.*.signal",
    "groups.*.targets",
    "targets.*.process",
    "targets.*.queues",
)
_IN_CONTEXTS = ("confirm", *(key for key in _KEYS if key != "context"))
KNOWN_KEYS = (*_KEYS, *(f"contexts.*.{key}" for key in _IN_CONTEXTS))
HINT = "qctl help configuration"
# A misspelt guard is an error: after a mere warning, the command would still write.
_GUARDS = {"read_only", "confirm"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Args:
        kind: the kind of source.
        name: the flag, the variable or the file's path; empty for a default.
        table: the table in the file, e.g. ``contexts.prod.redis``; empty for the top level.
    """

    kind: Literal["flag", "environment", "file", "default"]
    name: str = ""
    table: str = ""

    def __str__(self) -> str:
        if self.kind == "default":
            return "default"
        return f"{self.name} [{self.table}]" if self.table else self.name


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one source, by table and key; tables are nested.

    Args:
        values: e.g. ``{"redis": {"url": "…"}, "read_only": True}``.
        origins: by dotted key, the flag or variable that set the value; None for a file.
        path: the config file; ``.`` (the current folder) for flags and variables.
        base: the table that the values are in, e.g. ``contexts.prod``; empty for the whole file.
        is_project: whether the file is a project's ``qctl.toml``, which qctl trusts less, because
            a stranger may have written such a file.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, Origin] | None = None
    path: Path = Path()
    base: str = ""
    is_project: bool = False

    def get(self, key: str) -> Any:
        """The value of a dotted key, or None if the key is missing. For errors see ``table``."""
        *tables, last = key.split(".")
        return self.table(*tables).get(last)

    def table(self, *names: str) -> Mapping[str, Any]:
        """The table at a path of names; a name may contain dots. Empty if the table is not set.

        Raises:
            UsageError: one of the values on that path is not a table.
        """
        table = self.values
        for depth, name in enumerate(names, 1):
            table = table.get(name, {})
            if not isinstance(table, dict):
                shown = ".".join(filter(None, (self.base, *map(_quoted, names[:depth]))))
                raise UsageError(f"config: [{shown}] in {self.path} must be a table", hint=HINT)
        return table

    def require_own(self, what: str, table: str) -> None:
        """Raise an error if somebody other than the user may have written commands in this file.

        Args:
            what: the name of the table or key that holds the commands; for the message.
            table: where to put the commands in the user's own config; for the message.

        Raises:
            UsageError: the file is a project's, or other users can change it.
        """
        if self.is_project:
            raise UsageError(
                f"config: {what} in {self.path} is not run",
                why="a project's file may come from a stranger",
                hint=f"put it into the user's own config, under [{table}]",
            )
        if self.path.stat().st_mode & 0o022:
            raise UsageError(
                f"config: {self.path} has {what}, and other users can change it",
                hint=f"chmod go-w {self.path}",
            )

    def origin(self, key: str) -> Origin:
        """Where the value of ``key`` comes from."""
        if self.origins is not None:
            return self.origins[key]
        table = key.rpartition(".")[0]
        return Origin("file", str(self.path), ".".join(part for part in (self.base, table) if part))


def user_config_path(env: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/qctl/config.toml``, by default ``~/.config/qctl/config.toml``."""
    base = env.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "qctl" / "config.toml"


def project_config_path() -> Path | None:
    """The ``qctl.toml`` in the current folder, else in the nearest parent that has one.

    None if there is no such file, or if the current folder was removed, e.g. by a deployment.
    Folders that this user may not read are skipped.
    """
    with suppress(FileNotFoundError):
        folder = Path.cwd()
        for parent in (folder, *folder.parents):
            candidate = parent / "qctl.toml"
            with suppress(PermissionError):
                if candidate.is_file():
                    return candidate
    return None


def read_layers(env: Mapping[str, str]) -> list[Layer]:
    """The project's config file, then the user's, if they exist.

    Raises:
        UsageError: a file is not TOML or cannot be read. Without this error, qctl would miss a
            guard in the file.
    """
    project, user = project_config_path(), user_config_path(env)
    layers = []
    if project is not None:
        layers.append(Layer(_read(project), path=project, is_project=True))
    try:
        is_there = user.is_file()
    except PermissionError as error:
        raise UsageError(
            f"the config file {user} cannot be read",
            why=str(error.strerror),
            hint="set HOME or XDG_CONFIG_HOME to a folder of the user that runs qctl",
        ) from None
    if is_there:
        layers.append(Layer(_read(user), path=user))
    return layers


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most machines have no config file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the config file {path} cannot be read", why=str(error), hint="fix or remove it"
        ) from error


def context_names(files: Sequence[Layer]) -> tuple[str, ...]:
    """The names of the contexts that the files define."""
    return tuple(sorted({name for file in files for name in file.table("contexts")}))


def layers_of(context: str, files: Sequence[Layer]) -> list[Layer]:
    """The tables of a context in all files, as layers in order of precedence."""
    base = f"contexts.{context}"
    return [
        Layer(file.table("contexts", context), None, file.path, base, file.is_project)
        for file in files
        if context in file.table("contexts")
    ]


class Lookup:
    """Looks up values in layers (the first layer wins), and records the origin of each value."""

    def __init__(self, layers: Sequence[Layer], origins: dict[str, Origin] | None = None) -> None:
        self.layers = layers
        self.origins = origins if origins is not None else {}

    def find(self, key: str) -> Any:
        """The value of a dotted key; None if the value is missing or empty."""
        for layer in self.layers:
            value = layer.get(key)
            if value not in (None, ""):
                self.origins[key] = layer.origin(key)
                return value
        self.origins[key] = DEFAULT
        return None

    def text(self, key: str) -> str | None:
        """The string value of a dotted key; None if the value is missing or empty.

        Raises:
            UsageError: the value is not a string.
        """
        value = self.find(key)
        if value is not None and not isinstance(value, str):
            raise UsageError(
                f"config: {key.rpartition('.')[2]} must be a string",
                # Do not show the value: it may be a list that contains a URL with a password.
                why=f"the value in {self.origins[key]} is not a string",
                hint=HINT,
            )
        return value

    def guard(self, key: str) -> bool:
        """Whether any file sets the guard to true; no other file can unset it.

        Within one file, the first layer wins: the context's table, then the top level. Raises
        ``UsageError`` if a value is neither true nor false.
        """
        self.origins[key] = DEFAULT
        by_file: dict[Path, bool] = {}
        for layer in self.layers:
            value = layer.get(key)
            if value is None or layer.path in by_file:
                continue
            if not isinstance(value, bool):
                raise UsageError(
                    f"config: {key} must be true or false",
                    why=f"it is {value!r} in {layer.origin(key)}",
                    hint=f"{key} = true",
                )
            if value and True not in by_file.values():
                self.origins[key] = layer.origin(key)
            by_file[layer.path] = value
        return any(by_file.values())


def unknown_keys(layers: Sequence[Layer]) -> Iterator[str]:
    """Warnings about unknown keys in the files.

    Raises:
        UsageError: a key looks like a misspelt guard, or like a guard in the wrong table.
    """
    for layer in layers:
        for key in _leaves(layer.values):
            if not any(_matches(key, known.split(".")) for known in KNOWN_KEYS):
                yield _unknown_key_warning(layer.path, key)


def _leaves(values: Mapping[str, Any], above: Sequence[str] = ()) -> Iterator[Sequence[str]]:
    """The keys of all values, as lists of names: a name may contain dots, as in [targets."a.b"]."""
    for name, value in values.items():
        key = (*above, name)
        if isinstance(value, dict):
            yield from _leaves(value, key)
        else:
            yield key


def _matches(parts: Sequence[str], known: Sequence[str]) -> bool:
    return len(parts) == len(known) and all(
        want in ("*", part) for part, want in zip(parts, known, strict=True)
    )


def _unknown_key_warning(path: Path, key: Sequence[str]) -> str:
    from difflib import SequenceMatcher  # noqa: PLC0415 - rarely needed

    *table, name = key
    names = sorted({known.rpartition(".")[2] for known in KNOWN_KEYS})
    meant = similar_names(name.replace("-", "_"), names)
    candidates = [known for known in KNOWN_KEYS if known.rpartition(".")[2] in meant]
    # Prefer the known keys of the same table, then the most similar key. For a key at the top
    # level, only similarity counts: the user may have forgotten the header of a table.
    best = max(
        candidates or KNOWN_KEYS,
        key=lambda known: (
            known.count(".") and _matches(table, known.split(".")[:-1]),
            SequenceMatcher(None, ".".join(key), known).ratio(),
        ),
    )
    suggested = _bracketed(_with_names(key, best))
    what = f"unknown key {_bracketed(key)} in {path}"
    if guards := _GUARDS.intersection(meant):
        raise UsageError(
            f"config: {what}",
            why=f"it looks like the guard {guards.pop()!r}, misspelt or in the wrong table; "
            "if qctl ignored it, commands would write",
            hint=f"{suggested} = true, or remove it",
        )
    return f"config: {what} is ignored; did you mean {suggested}?"


def _with_names(key: Sequence[str], known: str) -> list[str]:
    """The parts of ``known``, with each star replaced.

    A star becomes the part of ``key`` at the same position, or NAME if ``key`` has no part there.
    """
    *tables, _ = key
    return [
        tables[depth] if part == "*" and depth < len(tables) else part.replace("*", "NAME")
        for depth, part in enumerate(known.split("."))
    ]


def _bracketed(key: Sequence[str]) -> str:
    *table, name = map(_quoted, key)
    return f"[{'.'.join(table)}] {name}" if table else name


def _quoted(name: str) -> str:
    return f'"{name}"' if "." in name else name


def exposed_passwords(layer: Layer) -> Iterator[str]:
    """Warnings about files that hold a password and that other users can read."""
    roots = [(), *(("contexts", name) for name in layer.table("contexts"))]
    tables = [layer.table(*root, "redis") for root in roots]
    tls = [layer.table(*root, "redis", "tls") for root in roots]
    named = [
        *(table.get("password_file") for table in tables),
        *(table.get("key_password_file") for table in tls),
        *(layer.table(*root, "redis", "sentinel").get("password_file") for root in roots),
    ]
    names = {name for name in named if isinstance(name, str)}
    files = {path_named_in(layer.path, name) for name in names}
    tables += [layer.table(*root, "supervisord") for root in roots]
    if layer.origins is None and any(_holds_password(table.get("url")) for table in tables):
        files.add(layer.path)
    for path in sorted(files):
        # Ignore a missing password file (OSError) and a file name with a NUL (ValueError): they are
        # errors only when a command connects.
        with suppress(OSError, ValueError):
            status = path.stat()
            if status.st_mode & stat.S_IROTH:
                yield f"{path} holds a password, and every user can read it: chmod go-rwx {path}"
            # A file of another owner may be a secret mounted for the group, so do not warn.
            elif status.st_mode & stat.S_IRGRP and status.st_uid == os.geteuid():
                yield f"{path} holds a password, and its group can read it: chmod g-rwx {path}"


def _holds_password(url: object) -> bool:
    if not isinstance(url, str):
        return False
    if any(f"{name}=" in url for name in SECRET_PARAMETERS):
        return True
    return "@" in url and ":" in url.partition("://")[2].rpartition("@")[0]


def path_named_in(config: Path, name: str) -> Path:
    """A path in a config file: relative paths start at that file's folder; ``~`` is the home."""
    return config.parent / Path(name).expanduser()
