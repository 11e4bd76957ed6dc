"""The settings in force and where each comes from, the contexts, and the config files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from qctl.config.credentials import PARAMETERS
from qctl.config.files import DEFAULT, Origin, project_config_path, user_config_path
from qctl.config.settings import Settings, load_settings
from qctl.connection.address import EMBEDDED, parse_url
from qctl.durations import short_duration
from qctl.errors import QctlError, UsageError

_MASK = "***"


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in force, with ``***`` for a password; ``name`` is, for example, ``redis.url``."""

    name: str
    value: str | int | bool | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Context:
    """A ``[contexts.NAME]`` table, with the settings that ``--context NAME`` uses.

    Args:
        chosen: whether this context is in force.
        redis_url: with ``***`` for the password.
        error: why the context cannot be used; then ``redis_url``, ``prefix``, ``read_only`` and
            ``confirm`` are None.
    """

    name: str
    chosen: bool
    redis_url: str | None = None
    prefix: str | None = None
    read_only: bool | None = None
    confirm: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file, which need not exist."""

    kind: Literal["project", "user"]
    path: Path
    exists: bool


def describe_settings(settings: Settings) -> tuple[Setting, ...]:
    """Every value in force, with ``***`` for passwords.

    For a password from a file or a command, the value names the file or the command. The file is
    not read, and the command is not run.
    """
    origins = settings.origins
    values: dict[str, str | int | bool | None] = {
        "context": settings.context,
        "redis.url": masked_url(settings.redis_url),
        "redis.password": f"{_MASK} {settings.password_source}",
        "redis.prefix": str(settings.prefixes),
        "redis.max_stalled_count": settings.max_stalled_count,
        "read_only": settings.guards.read_only,
        "confirm": settings.guards.confirm,
        "pm2.home": str(settings.pm2_home),
        "supervisord.url": _masked_supervisord(settings.supervisord_url),
        "kubernetes.context": settings.kube_context or None,
        "drain.watch": short_duration(settings.watch_s),
        "state_home": str(settings.state_home),
    }
    for name, parameter in PARAMETERS.items():
        value = settings.url_parameters.get(parameter)
        if value is not None:
            values[name] = value if isinstance(value, str) else f"{_MASK} {value}"
    if settings.password_source is None:
        # The password is in the URL, or there is no password.
        del values["redis.password"]
    for target in settings.targets:
        values[f"targets.{target.name}"] = f"{target.process}: {', '.join(target.queues) or '-'}"
    for name, members in settings.groups.items():
        values[f"groups.{name}"] = (
            "(cannot be used)" if isinstance(members, UsageError) else ", ".join(members)
        )
    for app in settings.commands:
        # The arguments are not shown, because somebody may have put a password there.
        restart = f", restart with {app.restart[0]}" if app.restart else ""
        values[f"commands.{app.name}"] = f"status by {app.status[0]}{restart}"
    return tuple(Setting(name, value, origins.get(name, DEFAULT)) for name, value in values.items())


def list_contexts(settings: Settings, environ: Mapping[str, str]) -> tuple[Context, ...]:
    """The contexts of the config files, in the order of ``settings.contexts``."""
    found = []
    for name in settings.contexts:
        chosen = name == settings.context
        try:
            own = load_settings(context=name, environ=environ)
        except QctlError as error:
            found.append(Context(name, chosen, error=error.what))
        else:
            url, guards = masked_url(own.redis_url), own.guards
            found.append(
                Context(name, chosen, url, str(own.prefixes), guards.read_only, guards.confirm)
            )
    return tuple(found)


def config_files(environ: Mapping[str, str]) -> tuple[ConfigFile, ...]:
    """The project's config file, if there is one; then the user's, which has lower precedence."""
    project, user = project_config_path(), user_config_path(environ)
    files = [] if project is None else [ConfigFile("project", project, True)]
    return (*files, ConfigFile("user", user, user.is_file()))


def masked_url(url: str) -> str:
    """A Redis URL with ``***`` for its password. For an invalid URL, a remark in brackets."""
    # The URL of an embedded server has no password.
    if url.startswith(EMBEDDED):
        return url
    try:
        address = parse_url(url)
    except QctlError:
        return "(not a URL that qctl knows)"
    if address.password is None:
        return str(address)
    # ``str`` shows the user and not the password, so the mask becomes a part of the user.
    return str(replace(address, username=f"{address.username or ''}:{_MASK}"))


def _masked_supervisord(url: str) -> str | None:
    """The URL of supervisord with ``***`` for its password; None if it is not set."""
    from qctl.manage.supervisord.address import parse_url as parse  # noqa: PLC0415 - rarely set

    if not url:
        return None
    try:
        address = parse(url)
    except QctlError:
        return "(not a URL that qctl knows)"
    return str(replace(address, user=f"{address.user}:{_MASK}") if address.password else address)
