"""The names that TAB offers: queues, targets, contexts, prefixes, schedulers, workers.

Typer passes the half-typed command line, and the functions connect with the options on that line.
An error message would disturb the line, so a function that fails returns the names found before
the failure, often none. TAB starts no server, runs no password command, and waits at most
``MAX_WAIT_S``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from qctl.config.settings import Settings
    from qctl.connection.address import Address, Client

MAX_WAIT_S = 0.5
# The time limit for a scan of all keys. If the scan does not end in time, a background process
# scans again for the next TAB.
_MAX_SCAN_S = 0.3


_Read = Callable[["Settings", typer.Context], Iterable[str]]


def _in_time(read: _Read, *, ignore_context: bool = False) -> Callable[[typer.Context], list[str]]:
    """Make the function that Typer calls, which returns the names that ``read`` yields in time.

    Names with characters that cannot be printed are left out. With ``ignore_context``, the settings
    are loaded without the chosen context, which may not exist.
    """

    def complete(ctx: typer.Context) -> list[str]:
        import threading  # noqa: PLC0415 - only for a TAB

        from qctl.config.settings import load_settings  # noqa: PLC0415

        found: list[str] = []

        def look_up() -> None:
            environ = dict(os.environ)
            if ignore_context:
                environ.pop("QCTL_CONTEXT", None)
            try:
                settings = load_settings(
                    redis_url=_typed(ctx, "redis_url"),
                    prefixes=_typed(ctx, "prefix") or (),
                    all_prefixes=bool(_typed(ctx, "all_prefixes")),
                    context=None if ignore_context else _typed(ctx, "context"),
                    environ=environ,
                )
                for name in read(settings, ctx):
                    found.append(name)  # noqa: PERF402 - keeps the names found before a failure
            except Exception:
                return

        # In a thread, because a thread can be abandoned while a DNS server does not answer.
        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(MAX_WAIT_S)
        return sorted({name for name in found if name.isprintable()})

    return complete


def _typed(ctx: typer.Context, name: str) -> Any:
    """The value of a common option, which stands after the command or before it."""
    at: Any = ctx
    while at is not None:
        if value := at.params.get(name):
            return value
        at = at.parent
    return None


@_in_time
def queue_names(settings: Settings, _ctx: typer.Context) -> Iterable[str]:
    """The names of the queues, from the cache if a cache exists."""
    from qctl.ops.queues.names import QueueNameCache  # noqa: PLC0415
    from qctl.wire.read.discovery import survey  # noqa: PLC0415

    with _connected(settings) as (address, client):
        cache = QueueNameCache(settings.state_home, address, settings.prefixes)
        cached = cache.read()
        if cached is not None and cached.is_scan_due:
            cache.scan_in_background()
        if cached is None:
            seen = survey(client, settings.prefixes, _MAX_SCAN_S)
            if not seen.is_complete:
                cache.scan_in_background()
    queues = seen.queues if cached is None else cached.queues
    counts = Counter(queue.name for queue in queues)
    return [queue.name if counts[queue.name] == 1 else queue.full_name for queue in queues]


@_in_time
def prefixes(settings: Settings, _ctx: typer.Context) -> Iterable[str]:
    """The key prefixes under which Redis holds queues, as ``--prefix`` takes them."""
    from qctl.config.prefixes import EVERY_PREFIX, escaped  # noqa: PLC0415
    from qctl.wire.read.discovery import survey  # noqa: PLC0415

    with _connected(settings) as (_, client):
        return {escaped(queue.prefix) for queue in survey(client, EVERY_PREFIX, _MAX_SCAN_S).queues}


@_in_time
def scheduler_ids(settings: Settings, ctx: typer.Context) -> Iterable[str]:
    """The ids of the schedulers of the queue on the command line."""
    from qctl.config.prefixes import only  # noqa: PLC0415
    from qctl.ops.queues.select import select_queues  # noqa: PLC0415
    from qctl.ops.schedules.listing import list_schedules  # noqa: PLC0415

    with _connected(settings) as (_, client):
        (keys,) = select_queues(client, settings.prefixes, [ctx.params["queue"]])
        found, _ = list_schedules(client, only(keys.prefix), [keys.name])
    return [schedule.id for schedule in found.schedules]


@_in_time
def targets(settings: Settings, _ctx: typer.Context) -> Iterable[str]:
    """The targets of the config files, and those of the managers on this host."""
    from qctl.ops.processes.managers import known_targets  # noqa: PLC0415

    return known_targets(settings)


@_in_time
def background_workers(settings: Settings, _ctx: typer.Context) -> Iterable[str]:
    """The names of background workers, running or stopped."""
    from qctl.manage.qctl.state import master_names  # noqa: PLC0415

    return master_names(settings.state_home)


@contextmanager
def _connected(settings: Settings) -> Iterator[tuple[Address, Client]]:
    from qctl.config.passwords import PasswordSource  # noqa: PLC0415
    from qctl.connection.connect import connect  # noqa: PLC0415
    from qctl.errors import UsageError  # noqa: PLC0415

    secrets = (settings.password_source, *settings.url_parameters.values())
    if any(isinstance(secret, PasswordSource) and secret.command for secret in secrets):
        raise UsageError("TAB runs no password command, because it may ask the operator")
    address, client = connect(settings.full_url(), start=False)
    with closing(client):
        yield address, client


contexts = _in_time(lambda settings, _: settings.contexts, ignore_context=True)
