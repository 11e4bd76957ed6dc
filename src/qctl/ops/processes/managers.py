"""The process managers of this host: which are there, and what they run.

qctl asks a manager only if a file shows that the manager is there, or if the config names one of
the manager's targets. Each manager is asked in its own thread, with a time limit, so a manager that
hangs hides only its own processes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from qctl.config.settings import Settings
from qctl.errors import NotFoundError, QctlError, UsageError
from qctl.manage.kinds import KINDS, words_of
from qctl.manage.protocol import Identity, Locator, ManagedProcess, Manager, Restarter, Rollout

# A command that only shows information waits this long for a manager that hangs.
TIMEOUT_S = 2.0
_DOCKER_SOCKET = Path("/var/run/docker.sock")

T = TypeVar("T")
# The processes that were found, and a remark for each manager that cannot be read.
Found = tuple[Sequence[ManagedProcess], tuple[str, ...]]


def manager_for(  # noqa: PLR0911 - one return per manager
    kind: str, settings: Settings, timeout_s: float | None = None
) -> Restarter | Rollout:
    """The process manager of one kind.

    Args:
        kind: the first part of ``MANAGER:NAME``.
        timeout_s: how long to wait for an answer; None for the manager's own default.

    Raises:
        UsageError: qctl does not know the manager.
    """
    limit = {} if timeout_s is None else {"timeout_s": timeout_s}
    # Only the manager in use is loaded.
    if kind == "pm2":
        from qctl.manage.pm2.manager import Pm2  # noqa: PLC0415

        return Pm2(settings.pm2_home, **limit)
    if kind == "qctl":
        from qctl.manage.qctl.manager import Qctl  # noqa: PLC0415

        return Qctl(settings.state_home)
    if kind == "docker":
        from qctl.manage.docker.manager import Docker  # noqa: PLC0415

        return Docker(**limit)
    if kind == "supervisord":
        from qctl.manage.supervisord.manager import Supervisord  # noqa: PLC0415

        return Supervisord(settings.supervisord_url, **limit)
    if kind in {"systemd", "systemd-user"}:
        from qctl.manage.systemd.manager import Systemd  # noqa: PLC0415

        return Systemd(kind, **limit)
    if kind == "kubernetes":
        from qctl.manage.kubernetes.manager import Kubernetes  # noqa: PLC0415

        return Kubernetes(settings.kube_context, **limit)
    if kind == "command":
        from qctl.manage.command.manager import Command  # noqa: PLC0415

        return Command(settings.commands, **limit)
    known = list(KINDS)
    raise UsageError(
        f"qctl cannot restart processes of {kind!r}",
        why=f"it knows {', '.join(known[:-1])} and {known[-1]}",
        hint="name the target as MANAGER:NAME, for example pm2:worker (see `pm2 ls`)",
    )


def _is_present(kind: str, settings: Settings) -> bool:
    """Whether a file, or the config, shows that this manager is there; asks no manager."""
    try:
        return _has_files(kind, settings)
    except OSError:
        # This user may not look into the folder, so this user cannot use the manager either.
        return False


def _has_files(kind: str, settings: Settings) -> bool:
    files = {"pm2": settings.pm2_home / "rpc.sock", "qctl": settings.state_home / "workers"}
    if kind in files:
        return files[kind].exists()
    if kind == "command":
        return bool(settings.commands)
    if kind == "docker":
        is_named = bool(os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"))
        return (is_named or _DOCKER_SOCKET.exists()) and shutil.which("docker") is not None
    if kind == "supervisord":
        from qctl.manage.supervisord.address import find_socket  # noqa: PLC0415

        return bool(settings.supervisord_url) or find_socket() is not None
    if kind in {"systemd", "systemd-user"}:
        from qctl.manage.systemd.presence import is_present  # noqa: PLC0415

        return is_present(kind)
    return False


def present_managers(settings: Settings, timeout_s: float) -> list[Manager]:
    """The managers that are on this host, as files or the config show; asks no manager.

    Args:
        timeout_s: how long each manager may take to answer later.
    """
    # Each app in ``commands`` gets a separate manager: if one app hangs, the others still show.
    alone = [replace(settings, commands=(app,)) for app in settings.commands]
    return [
        manager_for(kind, each, timeout_s)
        for kind in KINDS
        if _is_present(kind, settings)
        for each in (alone if kind == "command" else [settings])
    ]


def known_targets(settings: Settings, timeout_s: float = TIMEOUT_S) -> list[str]:
    """The targets in the config, and the targets of each manager here that answers in time."""
    names = [*(target.name for target in settings.targets), *settings.groups]
    managers = present_managers(settings, timeout_s)
    answers, _ = _ask([(manager.kind, manager.targets) for manager in managers])
    return list(dict.fromkeys([*names, *answers]))


def managed_processes(
    settings: Settings,
    workers: Callable[[], Collection[str]],
    *,
    timeout_s: float = TIMEOUT_S,
) -> Found:
    """The processes under this host's managers, and the processes of the configured targets.

    A manager that implements ``Locator`` is asked only for processes that hold workers. No manager
    is started.

    Args:
        workers: reads the addresses of the worker connections, as in CLIENT LIST; called only if
            there is a ``Locator``.
        timeout_s: how long each manager may take to answer.

    Returns:
        the processes, and a remark for each manager that cannot be read.
    """
    managers = present_managers(settings, timeout_s)
    locators = [(m.kind, m) for m in managers if isinstance(m, Locator)]
    listed = [manager for manager in managers if not isinstance(manager, Locator)]
    jobs = [(m.kind, m.processes) for m in listed]
    jobs += list(_configured(settings, {manager.kind for manager in listed}, timeout_s))
    processes, remarks = _ask(jobs)
    if locators:
        located, more_remarks = _located(locators, workers, processes)
        processes = [*processes, *located]
        remarks += more_remarks
    # A process may be found twice: as a configured target, and by its workers. The first of the
    # two is kept, with the name from the config.
    found: dict[Identity, ManagedProcess] = {}
    for process in processes:
        found.setdefault(process.identity, process)
    return list(found.values()), remarks


def _configured(
    settings: Settings, listed: Collection[str], timeout_s: float
) -> Iterable[tuple[str, Callable[[], Sequence[ManagedProcess]]]]:
    """Calls that find the configured targets of managers that cannot list their processes."""
    for target in settings.targets:
        kind, _, name = target.process.partition(":")
        if name and kind in KINDS and kind not in {*listed, "pm2", "qctl"}:
            yield target.process, partial(_find, manager_for(kind, settings, timeout_s), name)


def _find(manager: Manager, name: str) -> Sequence[ManagedProcess]:
    try:
        found = manager.find(name)
    except NotFoundError:
        return ()
    # The manager may return a longer name. Keep the name from the config, because the config lists
    # the target's queues under that name.
    return [replace(process, target=f"{manager.kind}:{name}") for process in found]


def _located(
    locators: Sequence[tuple[str, Locator]],
    workers: Callable[[], Collection[str]],
    processes: Sequence[ManagedProcess],
) -> Found:
    """Ask the locators which processes hold the workers that ``processes`` do not hold.

    Args:
        locators: pairs of a manager's kind and the manager.
    """
    from qctl.manage.host import pids_by_endpoint  # noqa: PLC0415 - psutil costs 30 ms
    from qctl.ops.processes.attribution import by_address  # noqa: PLC0415
    from qctl.wire.read.clients import host_of  # noqa: PLC0415

    try:
        addresses = workers()
        known = by_address(processes, addresses)
        unknown = [address for address in addresses if address not in known]
        if not unknown:
            return (), ()
        owners = pids_by_endpoint()
    except Exception as error:
        # psutil raises errors of many kinds, for example if the system denies access.
        return (), (f"it is unknown which process holds which worker: {error}",)
    pids = {owners[address] for address in unknown if address in owners}
    hosts = {host_of(address) for address in unknown if address not in owners}
    found, remarks = _ask([(kind, partial(each.holding, pids, hosts)) for kind, each in locators])
    # A container here may have the same address as a worker on another host, so match the
    # connections once more.
    connected = {each.identity for each in by_address(found, unknown).values()}
    return [each for each in found if not each.addresses or each.identity in connected], remarks


def _ask(jobs: Sequence[tuple[str, Callable[[], Sequence[T]]]]) -> tuple[list[T], tuple[str, ...]]:
    """Make calls at the same time; returns all results, and a remark for each call that failed.

    Args:
        jobs: pairs of a name for the remark (a manager's kind, or a target) and a call.
    """
    if len(jobs) < 2:
        answers = [_answer(*job) for job in jobs]
    else:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - rarely needed

        with ThreadPoolExecutor(len(jobs)) as pool:
            answers = list(pool.map(lambda job: _answer(*job), jobs))
    return (
        [item for items, _ in answers for item in items],
        tuple(remark for _, remarks in answers for remark in remarks),
    )


def _answer(name: str, call: Callable[[], Sequence[T]]) -> tuple[Sequence[T], tuple[str, ...]]:
    try:
        return call(), ()
    except Exception as error:
        # The queues are in Redis: a failure of a manager must not hide them.
        text = str(error)
        if isinstance(error, QctlError):
            text = error.what + (f" ({error.why})" if error.why else "")
        title = words_of(name).title if name in KINDS else name
        return (), (f"no {title} processes shown: {text}",)
