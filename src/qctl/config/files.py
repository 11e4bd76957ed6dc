"""Config files: where they are, what they say under which table, and what is odd about them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qctl.errors import NotFoundError, UsageError

# Every key that means something, by its table; ``*`` stands for a name of the user's.
_KEYS = (
    "context",
    "read_only",
    "redis.url",
    "redis.prefix",
    "redis.max_stalled_count",
    "redis.password_file",
    "redis.password_command",
    "pm2.home",
    "targets.*.process",
    "targets.*.queues",
)
_IN_CONTEXTS = ("confirm", *(key for key in _KEYS if key != "context"))
KNOWN_KEYS = (*_KEYS, *(f"contexts.*.{key}" for key in _IN_CONTEXTS))
HINT = "see docs/configuration.md"
# A misspelt guard must stop the command: a warning would let it write.
_GUARDS = {"read_only", "confirm"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Args:
        kind: which of the places that are looked at.
        name: the flag, the variable or the file's path; empty for a default.
        table: the table in the file, e.g. ``contexts.prod.redis``; empty for its top.
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
    """Values from one place, by table and key; the tables of a file are nested in it.

    Args:
        values: e.g. ``{"redis": {"url": "…"}, "read_only": True}``.
        names: of flags and variables: the one that gave a value, by its key with its table.
        path: of a file.
        base: the table of the file that the values stand in, e.g. ``contexts.prod``.
        is_project: whether the file belongs to a project, perhaps one of strangers.
    """

    values: Mapping[str, Any]
    names: Mapping[str, Origin] | None = None
    path: Path = Path()
    base: str = ""
    is_project: bool = False

    def get(self, key: str) -> Any:
        """The value under a dotted key; None without one.

        Raises:
            UsageError: what should be a table is none.
        """
        *tables, last = key.split(".")
        inner = self.values
        for table in tables:
            inner = table_of(inner, table)
        return inner.get(last)

    def origin(self, key: str) -> Origin:
        """Where the value of ``key`` is from."""
        if self.names is not None:
            return self.names[key]
        table = key.rpartition(".")[0]
        return Origin("file", str(self.path), ".".join(part for part in (self.base, table) if part))


def user_config_path(env: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/qctl/config.toml``, with the usual default for the variable."""
    base = env.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "qctl" / "config.toml"


def project_config_path(folder: Path | None = None) -> Path | None:
    """``qctl.toml`` of the nearest folder upwards that has one; from the current one if not given.

    A current folder that was removed, as by a deployment, or that this user may not look into, has
    none.
    """
    with suppress(FileNotFoundError):
        folder = folder or Path.cwd()
        for parent in (folder, *folder.parents):
            candidate = parent / "qctl.toml"
            with suppress(PermissionError):
                if candidate.is_file():
                    return candidate
    return None


def read_layers(env: Mapping[str, str], cwd: Path | None = None) -> list[Layer]:
    """The files that exist, the one that wins first.

    The user's own is not passed over when it cannot be looked at: a guard may stand in it.

    Raises:
        UsageError: a file is not TOML or cannot be read.
    """
    project, user = project_config_path(cwd), user_config_path(env)
    layers = []
    if project is not None:
        layers.append(Layer(_read(project), path=project, is_project=True))
    try:
        is_there = user.is_file()
    except PermissionError as error:
        raise UsageError(
            f"the config file {user} cannot be looked at",
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
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the config file {path} cannot be read", why=str(error), hint="mend or remove it"
        ) from error


def table_of(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The table under a key; an empty one where there is none.

    Raises:
        UsageError: it is something else than a table.
    """
    value = values.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"config: [{key}] must be a table", hint=HINT)
    return value


def layers_of(
    context: str, contexts: Sequence[str], files: Sequence[Layer], env: Mapping[str, str]
) -> list[Layer]:
    """The tables of one context in all files, the one that wins first.

    Raises:
        NotFoundError: no file defines it.
    """
    if context not in contexts:
        raise NotFoundError(
            f"no context named {context!r}",
            why=f"defined: {', '.join(contexts) or 'none'}",
            hint=f"define [contexts.{context}] in {user_config_path(env)}",
        )
    # A dot in the name is no border between tables.
    return [
        Layer(table_of(inner, context), None, file.path, f"contexts.{context}", file.is_project)
        for file in files
        if context in (inner := table_of(file.values, "contexts"))
    ]


class Lookup:
    """Looks values up in layers, the first that has one wins; notes where it was found."""

    def __init__(self, layers: Sequence[Layer], origins: dict[str, Origin] | None = None) -> None:
        self.layers = layers
        self.origins = origins if origins is not None else {}

    def find(self, key: str) -> Any:
        """The value of a dotted key; None without one."""
        for layer in self.layers:
            value = layer.get(key)
            if value not in (None, ""):
                self.origins[key] = layer.origin(key)
                return value
        self.origins[key] = DEFAULT
        return None

    def text(self, key: str) -> str | None:
        """The same for a text.

        Raises:
            UsageError: it is something else.
        """
        value = self.find(key)
        if value is not None and not isinstance(value, str):
            raise UsageError(
                f"config: {key.rpartition('.')[2]} must be a text",
                # Not what it is: a list around a URL would show its password.
                why=f"it is none in {self.origins[key]}",
                hint=HINT,
            )
        return value

    def guard(self, key: str) -> bool:
        """Whether any file wants it: another file cannot lift what one demands.

        Within a file the table of the context says more than the top.
        """
        self.origins[key] = DEFAULT
        said: dict[Path, bool] = {}
        for layer in self.layers:
            value = layer.get(key)
            if value is None or layer.path in said:
                continue
            if not isinstance(value, bool):
                raise UsageError(
                    f"config: {key} must be true or false",
                    why=f"it is {value!r} in {layer.origin(key)}",
                    hint=f"{key} = true",
                )
            if value and True not in said.values():
                self.origins[key] = layer.origin(key)
            said[layer.path] = value
        return any(said.values())


def oddities(layers: Sequence[Layer]) -> Iterator[str]:
    """Keys of the files that are unknown, a sentence each.

    Raises:
        UsageError: a key looks like a misspelt guard.
    """
    for layer in layers:
        for key in _leaves(layer.values):
            if not _is_known(key):
                yield _unknown(layer.path, key)


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        # A dot in a name, as in [targets."a.b"], is no border between tables.
        key = f"{above}{name.replace('.', '_')}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        elif not isinstance(value, dict):
            yield key


def _is_known(key: str) -> bool:
    parts = key.split(".")
    return any(_matches(parts, known.split(".")) for known in KNOWN_KEYS)


def _matches(parts: Sequence[str], known: Sequence[str]) -> bool:
    return len(parts) == len(known) and all(
        want in ("*", part) for part, want in zip(parts, known, strict=True)
    )


def _unknown(path: Path, key: str) -> str:
    from difflib import SequenceMatcher, get_close_matches  # noqa: PLC0415 - rarely needed

    table, _, last = key.rpartition(".")
    lasts = sorted({known.rpartition(".")[2] for known in KNOWN_KEYS})
    near = get_close_matches(last.lower().replace("-", "_"), lasts, n=1, cutoff=0.6)
    candidates = [known for known in KNOWN_KEYS if known.rpartition(".")[2] in near]
    # A right word in a wrong table, a wrong word in a right one, or a whole table misspelt.
    best = max(
        candidates or KNOWN_KEYS,
        key=lambda known: (
            known.count(".") and _matches(table.split("."), known.split(".")[:-1]),
            SequenceMatcher(None, key, known).ratio(),
        ),
    )
    shown = _with_names(key, best)
    what = f"unknown key {_bracketed(key)} in {path}"
    if near and near[0] in _GUARDS:
        raise UsageError(
            f"config: {what}",
            why="it looks like a misspelt guard, without which commands would write",
            hint=f"{_bracketed(shown)} = true, or remove it",
        )
    return f"config: {what} does nothing; the nearest that does: {_bracketed(shown)}"


def _with_names(key: str, known: str) -> str:
    """A known key with the user's names in the places of its stars, as far as they are given."""
    names = key.split(".")[1:-1]
    parts = [
        names.pop(0) if part == "*" and names else part.replace("*", "NAME")
        for part in known.split(".")
    ]
    return ".".join(parts)


def _bracketed(key: str) -> str:
    table, _, last = key.rpartition(".")
    return f"[{table}] {last}" if table else last


def exposed(layer: Layer) -> Iterator[str]:
    """A sentence for each file in which others can read a password."""
    tables = [layer.values, *table_of(layer.values, "contexts").values()]
    redis = [table_of(table, "redis") for table in tables if isinstance(table, dict)]
    names = {name for table in redis if isinstance(name := table.get("password_file"), str)}
    files = {beside(layer.path, name) for name in names}
    if layer.names is None and any(_holds_password(table.get("url")) for table in redis):
        files.add(layer.path)
    for path in sorted(files):
        # A password file that is missing is an error only where it is needed.
        with suppress(OSError):
            yield from _readers(path, path.stat())


def _readers(path: Path, status: os.stat_result) -> Iterator[str]:
    if status.st_mode & stat.S_IROTH:
        yield f"{path} holds a password, and every user can read it: chmod go-rwx {path}"
    # Of a secret that was mounted for a group, the owner is another.
    elif status.st_mode & stat.S_IRGRP and status.st_uid == os.geteuid():
        yield f"{path} holds a password, and its group can read it: chmod g-rwx {path}"


def _holds_password(url: object) -> bool:
    if not isinstance(url, str) or "@" not in url:
        return False
    return ":" in url.partition("://")[2].rpartition("@")[0]


def beside(config: Path, name: str) -> Path:
    """The file that a config names: ``~`` is the home, relative means beside the config."""
    return config.parent / Path(name).expanduser()
