"""Settings: flag > environment > project ``qctl.toml`` > user config > default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qctl.connect import DEFAULT_URL
from qctl.errors import NotFoundError, UsageError

DEFAULT_PREFIX = "bull"
# BullMQ's own default. The limit is a worker option that stands nowhere in Redis.
DEFAULT_MAX_STALLED_COUNT = 1


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """A managed process and the queues it serves, as configured under ``[targets.NAME]``."""

    name: str
    process: str
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command runs with.

    Args:
        redis_url: where Redis is; may hold a password.
        prefix: BullMQ's key prefix.
        max_stalled_count: the workers' ``maxStalledCount``: a job that stalls more often fails.
        pm2_home: PM2's folder (``PM2_HOME``, else ``~/.pm2``).
        state_home: qctl's folder for state (``$XDG_STATE_HOME/qctl``).
        targets: processes with their queues, by name.
        contexts: names of the contexts that the config files define.
    """

    redis_url: str = field(default=DEFAULT_URL, repr=False)
    prefix: str = DEFAULT_PREFIX
    max_stalled_count: int = DEFAULT_MAX_STALLED_COUNT
    pm2_home: Path = Path("~/.pm2")
    state_home: Path = Path("~/.local/state/qctl")
    targets: tuple[TargetConfig, ...] = ()
    contexts: tuple[str, ...] = ()


def load_settings(
    *,
    redis_url: str | None = None,
    prefix: str | None = None,
    context: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Settings from flags (the keyword arguments), environment and config files.

    Raises:
        UsageError: a config file is not TOML, or a value has the wrong type.
        NotFoundError: the context is not defined.
    """
    env = os.environ if environ is None else environ
    config = _merge(_read(user_config_path(env)), _read(_project_config(cwd or Path.cwd())))
    contexts = _table(config, "contexts")
    context = context or env.get("QCTL_CONTEXT") or _text(config, "context")
    if context:
        if context not in contexts:
            raise NotFoundError(
                f"no context named {context!r}",
                why=f"defined: {', '.join(sorted(contexts)) or 'none'}",
                hint=f"define [contexts.{context}] in {user_config_path(env)}",
            )
        config = _merge(config, _table(contexts, context))
    redis = _table(config, "redis")
    limit = env.get("QCTL_MAX_STALLED_COUNT") or redis.get("max_stalled_count")
    pm2_home = env.get("PM2_HOME") or _text(_table(config, "pm2"), "home") or "~/.pm2"
    return Settings(
        redis_url=redis_url
        or env.get("QCTL_REDIS_URL")
        or env.get("REDIS_URL")
        or _text(redis, "url")
        or DEFAULT_URL,
        prefix=prefix or env.get("QCTL_PREFIX") or _text(redis, "prefix") or DEFAULT_PREFIX,
        max_stalled_count=_count(limit),
        pm2_home=Path(pm2_home).expanduser(),
        state_home=state_home(env),
        targets=_targets(_table(config, "targets")),
        contexts=tuple(sorted(contexts)),
    )


def user_config_path(env: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/qctl/config.toml``, with the usual default for the variable."""
    base = env.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "qctl" / "config.toml"


def state_home(env: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/qctl``, with the usual default for the variable."""
    base = env.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "qctl"


def _project_config(folder: Path) -> Path | None:
    for parent in (folder, *folder.parents):
        candidate = parent / "qctl.toml"
        if candidate.is_file():
            return candidate
    return None


def _read(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    import tomllib  # noqa: PLC0415 - most machines have no config file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the config file {path} cannot be read", why=str(error), hint="mend or remove it"
        ) from error


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)  # noqa: PLW2901
        merged[key] = value
    return merged


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"config: [{key}] must be a table", hint="see docs/configuration.md")
    return value


def _text(table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"config: {key} must be a text", hint="see docs/configuration.md")
    return value


def _count(value: object) -> int:
    if value is None:
        return DEFAULT_MAX_STALLED_COUNT
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if count < 0:
        raise UsageError(
            f"max_stalled_count must be a whole number from 0, not {value!r}",
            hint="set QCTL_MAX_STALLED_COUNT to the workers' maxStalledCount",
        )
    return count


def _targets(table: dict[str, Any]) -> tuple[TargetConfig, ...]:
    targets = []
    for name, entry in table.items():
        process = _text(entry, "process") if isinstance(entry, dict) else None
        queues = entry.get("queues", []) if isinstance(entry, dict) else None
        if (
            not process
            or not isinstance(queues, list)
            or not all(isinstance(queue, str) for queue in queues)
        ):
            raise UsageError(
                f'config: [targets.{name}] needs process = "MANAGER:NAME" and queues = ["…"]',
                hint="see docs/configuration.md",
            )
        targets.append(TargetConfig(name, process, tuple(queues)))
    return tuple(targets)
