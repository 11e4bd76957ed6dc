"""Finds what the config adds to the Redis URL: passwords, TLS files, the sentinels' user.

The URL and the credentials must come from one layer. Otherwise, a flag, a variable or a downloaded
project's ``qctl.toml`` could send the credentials of another layer to a foreign server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qctl.config.commands import argument_list
from qctl.config.files import HINT, Layer, Lookup, path_named_in
from qctl.config.passwords import PasswordSource
from qctl.errors import UsageError

# Setting → the URL parameter with the same meaning.
_FILES = {
    "redis.tls.ca_file": "ssl_ca_certs",
    "redis.tls.cert_file": "ssl_certfile",
    "redis.tls.key_file": "ssl_keyfile",
}
_TEXTS = {
    "redis.tls.server_name": "ssl_server_name",
    "redis.sentinel.username": "sentinel_username",
}
# In the config, these names have ``_file`` or ``_command`` at the end.
_SECRETS = {
    "redis.tls.key_password": "ssl_password",
    "redis.sentinel.password": "sentinel_password",
}
PARAMETERS = {**_FILES, **_TEXTS, **_SECRETS}


def find_password(lookup: Lookup) -> PasswordSource | None:
    """The source of the password: ``redis.password_file`` or ``redis.password_command``; or None.

    Raises:
        UsageError: a value is not valid, or not allowed in a project's ``qctl.toml``.
    """
    return _secret(lookup, "redis.password")


def find_parameters(lookup: Lookup) -> dict[str, str | PasswordSource]:
    """The parameters that ``[redis.tls]`` and ``[redis.sentinel]`` add to the URL.

    Raises:
        UsageError: as for ``find_password``.
    """
    found: dict[str, str | PasswordSource] = {}
    for setting, parameter in _FILES.items():
        if layer := _layer_with(lookup, setting):
            found[parameter] = str(_file(layer, setting))
            lookup.origins[setting] = layer.origin(setting)
    for setting, parameter in _TEXTS.items():
        if layer := _layer_with(lookup, setting):
            found[parameter] = _text(layer, setting)
            lookup.origins[setting] = layer.origin(setting)
    for setting, parameter in _SECRETS.items():
        if source := _secret(lookup, setting):
            found[parameter] = source
    return found


def _layers(lookup: Lookup) -> Sequence[Layer]:
    """The layer whose ``url`` is used; all layers if no layer has a ``url``."""
    return [layer for layer in lookup.layers if layer.get("redis.url")][:1] or lookup.layers


def _layer_with(lookup: Lookup, setting: str) -> Layer | None:
    layers = _layers(lookup)
    return next((layer for layer in layers if layer.get(setting) not in (None, "")), None)


def _secret(lookup: Lookup, setting: str) -> PasswordSource | None:
    name = setting.rpartition(".")[2]
    for layer in _layers(lookup):
        file, command = layer.get(f"{setting}_file"), layer.get(f"{setting}_command")
        if file is None and command is None:
            continue
        if file is not None and command is not None:
            raise UsageError(
                f"config: {name}_file and {name}_command exclude each other",
                why=f"both are in {layer.origin(f'{setting}_file')}",
                hint="remove one of them",
            )
        # This origin is also right for ``_command``, because the origin of a value in a config file
        # names only the table, not the key.
        lookup.origins[setting] = layer.origin(f"{setting}_file")
        if command is None:
            return PasswordSource(file=_file(layer, f"{setting}_file"), setting=name)
        layer.require_own(f"{name}_command", f"contexts.NAME.{setting.rpartition('.')[0]}")
        words = argument_list(command)
        if words is None:
            raise UsageError(
                f"config: {name}_command must be a list of strings",
                hint=f'{name}_command = ["op", "read", "op://vault/redis/password"]',
            )
        return PasswordSource(command=words, setting=name)
    return None


def _text(layer: Layer, setting: str) -> str:
    value = layer.get(setting)
    if not isinstance(value, str) or not value:
        raise UsageError(f"config: {setting.rpartition('.')[2]} must be a string", hint=HINT)
    return value


def _file(layer: Layer, setting: str) -> Path:
    place = path_named_in(layer.path, _text(layer, setting))
    if layer.is_project and not place.resolve().is_relative_to(layer.path.parent.resolve()):
        table, _, name = setting.rpartition(".")
        raise UsageError(
            f"config: {name} in {layer.path} names a file outside of the project",
            why=f"a project's {layer.path.name} may come from a stranger, who could steal secrets",
            hint=f"set {name} in your own config, under [contexts.NAME.{table}]",
        )
    return place


def require_tls(is_tls: bool, parameters: Mapping[str, object]) -> None:
    """Refuse TLS settings for a URL without TLS: qctl would send everything in the clear.

    Raises:
        UsageError: the URL has no TLS, but the settings do.
    """
    if not is_tls and any(name.startswith("ssl_") for name in parameters):
        raise UsageError(
            "TLS is configured, but the Redis URL is one without TLS",
            why="[redis.tls] of the config or a variable QCTL_REDIS_TLS_… is set",
            hint="begin the URL with rediss:// or valkeys://, or remove these settings",
        )
