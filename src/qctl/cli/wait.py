"""``qctl wait``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import Queue
from qctl.durations import parse_duration_s
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.ops.follow.wait import Condition

app = App()

# The shortest time between two lines about the awaited jobs.
_REPEAT_S = 10.0


@app.command("wait")
def wait(
    env: Environment,
    queue: Queue,
    *,
    condition: Annotated[
        str, typer.Option("--for", metavar="idle|empty|job=ID", help="What to wait for")
    ],
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="D", help="Give up after 30s, 10m, 2h (exit code 4)"),
    ] = None,
    include_delayed: Annotated[
        bool,
        typer.Option(
            "--include-delayed",
            help="With --for empty: also wait for delayed jobs (except the next jobs of "
            "schedulers) and for parents of unfinished children",
        ),
    ] = False,
) -> None:
    """Wait until a queue is idle or empty, or a job is finished.

    idle: no job is active. empty: no job is waiting, prioritized or active. job=ID: the job has
    completed; if it fails, the wait ends at once with exit code 1 and the reason.
    """
    from qctl.ops.follow import wait as ops  # noqa: PLC0415 - not for --help
    from qctl.output.events import wait_line  # noqa: PLC0415

    if include_delayed and condition != "empty":
        raise UsageError("--include-delayed needs --for empty")
    timeout_s = None if timeout is None else parse_duration_s(timeout, "--timeout")
    awaited = _condition(env, queue, condition, include_delayed=include_delayed)
    shown: tuple[str, ...] = ()
    text, text_at_s = "", -_REPEAT_S
    for step in ops.wait_for(awaited, timeout_s=timeout_s):
        if isinstance(step, ops.WaitReport):
            env.show(step, filter(None, [wait_line(step)]))
            if (error := ops.error_of(step, env.settings.prefix)) is not None:
                raise error
            continue
        if env.output == "ndjson":
            env.emit_json(step)
        for remark in step.remarks:
            if remark not in shown:
                env.note(remark)
        shown = step.remarks
        if step.text != text and step.waited_s - text_at_s >= _REPEAT_S:
            text, text_at_s = step.text, step.waited_s
            env.note(f"waiting: {step.text}")


def _condition(env: Environment, queue: str, text: str, *, include_delayed: bool) -> Condition:
    """The condition that ``text``, the value of --for, describes."""
    from qctl.ops.follow.wait import JobCondition, QueueCondition  # noqa: PLC0415
    from qctl.ops.queues.find import find_queues, require_bullmq  # noqa: PLC0415

    kind, _, job_id = text.partition("=")
    if text not in {"idle", "empty"} and not (kind == "job" and job_id):
        raise UsageError(f"--for {text!r} is unknown", hint="--for idle, empty or job=ID")
    address, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    require_bullmq([snapshot], hint="qctl status --watch")
    if kind == "job":
        return JobCondition(client, snapshot.keys, job_id, db=address.db)
    return QueueCondition(
        client, snapshot.keys, text, include_delayed=include_delayed, db=address.db
    )
