"""``qctl status`` and ``qctl workers``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.help import optional_value
from qctl.cli.options import QueuesOrAll
from qctl.durations import parse_duration_s
from qctl.ops.processes.suggest import command

if TYPE_CHECKING:
    from qctl.connection.address import Client
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

Problems = Annotated[
    bool,
    typer.Option("--problems", help="Only queues that have, or may have, a problem"),
]


@app.command("status", cls=optional_value("--watch", DEFAULT_INTERVAL_S))
def status(
    env: Environment,
    names: QueuesOrAll = None,
    watch: Watch = None,
    problems: Problems = False,
) -> None:
    """Queues at a glance: problems, jobs by state, workers, processes.

    The problems are listed above the table, the worst first. In the table, queues with problems
    come first.
    WAITING counts jobs that a worker could take. ACTIVE counts jobs that workers have taken;
    STALLED counts those without a lock. OLDEST is how long the first job in line has waited.
    """
    from qctl.ops.queues.status import inspect_queues  # noqa: PLC0415 - not for --help

    def inspect(client: Client | None = None) -> Inspection:
        address, own_client = env.redis()
        inspection = inspect_queues(client or own_client, address, env.settings, names or [])
        if not problems:
            return inspection
        return replace(inspection, report=inspection.report.only_problems())

    if watch is not None:
        from qctl.cli.watch import watch_status  # noqa: PLC0415 - rarely used

        interval_s = parse_duration_s(
            watch, "--watch", min_s=MIN_INTERVAL_S, max_s=MAX_INTERVAL_S, example="5s"
        )
        watch_status(env, inspect, interval_s)
        return
    text = "reading the queues …" if names else "finding and reading the queues …"
    with remark_if_slow(env, text):
        inspection = inspect()
    if env.output == "table":
        from qctl.output.status import status_text, summary_line  # noqa: PLC0415 - not for JSON

        report = inspection.report
        text = status_text(report, width=env.width, colour=env.may_colour())
        env.streams.stdout.write(text)
        if problems and not report.problems and report.doctor_errors is None:
            env.note("no problem found; `qctl doctor` examines more")
        is_tall = env.streams.stdout_is_terminal and text.count("\n") >= env.terminal_height
        if is_tall and report.problems and not problems:
            only = command(None, "status", *(names or []), "--problems")
            env.note(f"{summary_line(report)}; only those: `{only}`")
    else:
        env.emit_json(inspection.report)
    env.note(*inspection.remarks)
    inspection.queues.raise_if_broken()


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
def remark_if_slow(env: Environment, text: str) -> Iterator[None]:
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
