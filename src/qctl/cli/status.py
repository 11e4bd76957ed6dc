"""``qctl status``, ``qctl queues`` and ``qctl workers``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.help import optional_value
from qctl.cli.options import QueuesOrAll
from qctl.durations import parse_duration_s
from qctl.grouping import grouped

if TYPE_CHECKING:
    from qctl.ops.queues.status import Inspection

# A string, as typed after --watch.
DEFAULT_INTERVAL_S = "2"
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.1, 86_400.0
# If reading takes longer than this, a remark on the terminal says what is being read.
PATIENCE_S = 1.0

app = App()

Watch = Annotated[
    str | None,
    typer.Option(
        "--watch",
        metavar="[D]",
        help=f"Refresh every {DEFAULT_INTERVAL_S} s (or D, such as 1m) until Ctrl-C",
    ),
]


@app.command("status", cls=optional_value("--watch", DEFAULT_INTERVAL_S))
def status(env: Environment, names: QueuesOrAll = None, watch: Watch = None) -> None:
    """Queues at a glance: jobs by state, pauses, workers, processes.

    WAITING counts jobs that a worker could take. ACTIVE counts jobs that workers have taken;
    STALLED counts those without a lock. OLDEST is how long the first job in line has waited.
    """
    from qctl.ops.queues.status import inspect_queues  # noqa: PLC0415 - not for --help

    def inspect() -> Inspection:
        address, client = env.redis()
        return inspect_queues(client, address, env.settings, names or [])

    if watch is not None:
        from qctl.cli.watch import watch_status  # noqa: PLC0415 - rarely used

        interval_s = parse_duration_s(
            watch, "--watch", min_s=MIN_INTERVAL_S, max_s=MAX_INTERVAL_S, example="5s"
        )
        watch_status(env, inspect, interval_s)
        return
    text = "reading the queues …" if names else "finding and reading the queues …"
    with _remark_if_slow(env, text):
        inspection = inspect()
    if env.output == "table":
        from qctl.output.status import status_text  # noqa: PLC0415 - not for JSON

        env.draw(status_text, inspection.report)
    else:
        env.emit_json(inspection.report)
    env.note(*inspection.remarks)
    inspection.queues.raise_if_broken()


@app.command("queues")
def queues(env: Environment) -> None:
    """Names of the queues that exist.

    Scans every key of the database, which takes seconds if there are millions of keys. For a few
    minutes, other commands reuse the names.
    """
    from qctl.ops.queues.missing import no_queues  # noqa: PLC0415
    from qctl.ops.queues.names import QueueNameCache  # noqa: PLC0415
    from qctl.output.text import visible  # noqa: PLC0415

    address, client = env.redis()
    with _remark_if_slow(env, "searching all keys of this Redis for queues …"):
        cache = QueueNameCache(env.settings.state_home, address, env.settings.prefixes)
        found = cache.scan(client).queues
    if not found:
        raise no_queues(client, env.settings.prefixes)
    is_single = env.settings.prefixes.single is not None
    names = [queue.name if is_single else queue.full_name for queue in found]
    by_prefix = {
        prefix: [queue.name for queue in queues]
        for prefix, queues in grouped(found, lambda queue: queue.prefix).items()
    }
    env.show(
        {"queues": names, "by_prefix": by_prefix}, (visible(name, env.width) for name in names)
    )


@app.command("workers")
def workers(env: Environment, names: QueuesOrAll = None) -> None:
    """Workers that are connected, and the processes they run in.

    A worker that is closing is no longer listed, although its job may still run.
    """
    from qctl.ops.queues.workers import inspect_workers  # noqa: PLC0415

    address, client = env.redis()
    report, remarks = inspect_workers(client, address, env.settings, names or [])
    if env.output != "table":
        env.emit_json(report)
    elif report.workers:
        from qctl.output.status import workers_text  # noqa: PLC0415

        env.draw(workers_text, report)
    else:
        env.note(
            "no worker is connected; a worker whose name has a space or is not ASCII cannot be seen"
        )
    env.note(*remarks)


@contextlib.contextmanager
def _remark_if_slow(env: Environment, text: str) -> Iterator[None]:
    """On a terminal, print ``text`` if the block takes longer than ``PATIENCE_S``."""
    if not env.animated:
        yield
        return
    timer = threading.Timer(PATIENCE_S, env.note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
