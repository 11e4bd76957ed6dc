"""Which major versions of BullMQ work on a queue, and whether a pause is safe with them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.errors import RefusedError, is_outage
from qctl.manage.packages import installed_bullmq
from qctl.manage.protocol import ManagedProcess
from qctl.ops.processes.attribution import holders, queues_served, serving
from qctl.ops.processes.managers import managed_processes
from qctl.ops.processes.suggest import command
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import list_all_workers
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.read.versions import BullMQ5Traces, other_libraries, read_bullmq5_traces
from qctl.wire.replies import to_int

# Older traces of BullMQ 5 are ignored: they may be from before an update.
LATELY_MS = 600_000

Queue = TypeVar("Queue", QueueKeys, str)


def installed_by_queue(
    served: Mapping[ManagedProcess, Collection[Queue]],
) -> dict[Queue, list[tuple[str, str]]]:
    """Queue → targets of the processes that serve it, each with its installed BullMQ version.

    Args:
        served: process → the queues that the process serves, or their names.
    """
    found: dict[Queue, list[tuple[str, str]]] = {}
    for process, queues in served.items():
        version = installed_bullmq(process)
        for queue in queues if version is not None else ():
            found.setdefault(queue, []).append((process.target, str(version)))
    return found


def _installed(
    client: Client, settings: Settings, db: int, queues: Collection[QueueKeys]
) -> dict[QueueKeys, list[tuple[str, str]]]:
    """``installed_by_queue`` for all processes of this host that serve these queues.

    Empty if the processes cannot be read. A pause then relies on the other signs, in Redis.

    Raises:
        UnreachableError: Redis cannot be reached.
    """
    try:
        found = list_all_workers(client, queues, db)
        workers = found.workers if found is not None else ()
        processes, _ = managed_processes(settings, lambda: [w.address for w in workers])
        if not processes:
            return {}
        connected = queues_served(workers, holders(client, workers, processes))
    except Exception as error:
        # psutil raises many kinds of exceptions.
        if is_outage(error):
            raise
        return {}
    return installed_by_queue(serving(processes, connected, settings, queues))


def version_signs(
    snapshot: QueueSnapshot, traces: BullMQ5Traces, installed: Sequence[tuple[str, str]] = ()
) -> dict[int, list[str]]:
    """Major version (5 or 6) → signs, in words, that BullMQ of this version works on a queue.

    Args:
        installed: targets of processes that serve the queue, each with its installed version.
    """
    signs: dict[int, list[str]] = {5: [], 6: []}
    found = {f"{target} has {version}": version for target, version in installed}
    if snapshot.client_version:
        last = snapshot.client_version
        found[f"its last Queue object was created with {last}"] = last
    for text, version in found.items():
        major = to_int(version.partition(".")[0])
        if major in signs:
            signs[major].append(text)
    if traces.debounced:
        signs[5].append("debounced events")
    if traces.next_ids:
        signs[5].append("a worker that ran schedules")
    in_wait = snapshot.counts.waiting - snapshot.legacy_paused
    by_qctl = any((snapshot.pause_note, snapshot.uncertain_note, snapshot.lease))
    # A pause by qctl leaves all ready jobs in one list, ``wait`` or ``paused``. If both lists have
    # jobs later, clients of both versions have added jobs.
    if snapshot.paused and snapshot.legacy_paused and (in_wait or not by_qctl):
        signs[5].append("jobs in the paused list")
    if snapshot.paused and in_wait and (snapshot.legacy_paused or not by_qctl):
        signs[6].append("jobs in wait although it is paused")
    return signs


def require_safe_pause(
    client: Client,
    snapshots: Sequence[QueueSnapshot],
    settings: Settings,
    db: int,
    *,
    accept: bool = False,
) -> dict[QueueKeys, str]:
    """Refuse to pause a queue on which BullMQ 5 and BullMQ 6 both work.

    BullMQ 6 adds jobs to a list that a resume by BullMQ 5 overwrites (wire format 10.2). A paused
    queue is always accepted: if qctl pauses it again, its jobs are moved into one list.

    Args:
        settings: they name the process managers, which are asked for the installed versions.
        accept: warn instead of refusing.

    Returns:
        The queues on which both versions work, each with a warning. A pause must put the jobs of
        these queues into the ``paused`` list.

    Raises:
        RefusedError: both versions work on a queue, and ``accept`` is False.
    """
    running = [snapshot for snapshot in snapshots if not snapshot.paused]
    if not running:
        return {}
    queues = [snapshot.keys for snapshot in running]
    installed = _installed(client, settings, db, queues)
    traces = read_bullmq5_traces(client, queues, int(time.time() * 1000) - LATELY_MS)
    others = other_libraries(client, queues)
    warnings = {}
    for snapshot in running:
        keys = snapshot.keys
        signs = version_signs(snapshot, traces[keys], installed.get(keys, ()))
        # The version number of another library, such as BullMQ Pro, is no sign.
        if not (signs[5] and signs[6]) or keys in others:
            continue
        both = (
            f"{keys.name}: BullMQ 5 ({'; '.join(signs[5])}) and BullMQ 6 ({'; '.join(signs[6])}) "
            "both work on it"
        )
        if not accept:
            raise RefusedError(
                f"{both}, so a pause can lose jobs",
                why="a resume by BullMQ 5 loses what BullMQ 6 has added since the pause",
                hint="bring its producers and workers to one version, or add --mixed-versions and "
                "resume it with qctl only",
            )
        resume = command(keys.prefix, "resume", keys.name)
        warnings[keys] = (
            f"{both}: resume it with qctl only ({resume}). A resume by BullMQ 5 loses what BullMQ "
            "6 has added since the pause"
        )
    return warnings
