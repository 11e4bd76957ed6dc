"""``qctl events``: show the recent events of a queue, or follow new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import Queue
from qctl.cli.times import note_local_time
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.ops.follow.events import QueueEvent, Remark

app = App()


@app.command("events")
def events(
    env: Environment,
    queue: Queue,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue with new events until Ctrl-C")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only events since TIME: an age (2h), 03:55, yesterday, a date and time, or an "
            "event id",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="NAME", help="Only events with this name; may be repeated"),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Only events of this job")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="At most N events; default 50"),
    ] = None,
) -> None:
    """Show the recent events of a queue, or follow new ones.

    BullMQ keeps about the last 10,000 events of a queue. Without --follow, the last --limit events
    are shown. With --follow, new events are shown; if --since is given, the events since TIME come
    first. The command then ends at Ctrl-C, or after --limit events if --limit is given.
    """
    from qctl.ops.follow import events as ops  # noqa: PLC0415 - not loaded for --help
    from qctl.ops.queues.find import find_queues  # noqa: PLC0415

    if follow and env.output == "json":
        raise UsageError(
            "--follow prints one event at a time, so it cannot print one JSON object",
            hint="--output ndjson prints one object per event",
        )
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    ops.require_stream(snapshot)
    after = None if since is None else ops.start_id(client, since)
    if since is not None and (at := ops.time_of(after)) is not None:
        # ``after`` is the last id before the time in ``since``, so its own time is 1 ms earlier.
        note_local_time(env, since, at + timedelta(milliseconds=1))
    env.note(*ops.unknown_name_remarks(names or ()))
    wanted = ops.EventFilter(frozenset(names or ()), job_id)
    if follow:
        _follow(env, ops.follow_events(client, snapshot.keys, wanted, after=after), limit)
        return
    page = ops.recent_events(
        client, snapshot.keys, wanted, after=after, limit=limit or ops.DEFAULT_LIMIT
    )
    if env.output == "json":
        env.emit_json(page)
        return
    for event in page.events:
        _show(env, event)
    if env.output == "table":
        from qctl.output.events import summary  # noqa: PLC0415 - not loaded for JSON

        if remark := summary(page, since_at=ops.time_of(after), filtered=wanted.is_set):
            env.note(remark)


def _follow(env: Environment, items: Iterable[QueueEvent | Remark], limit: int | None) -> None:
    from qctl.ops.follow.events import Remark  # noqa: PLC0415 - not loaded for --help

    shown = 0
    # Ctrl-C is the normal way to stop following, so it is not an error.
    with contextlib.suppress(KeyboardInterrupt):
        for item in items:
            if isinstance(item, Remark):
                env.note(item.text)
                continue
            _show(env, item)
            env.streams.stdout.flush()
            shown += 1
            if shown == limit:
                return


def _show(env: Environment, event: QueueEvent) -> None:
    if env.output == "ndjson":
        env.emit_json(event)
        return
    from qctl.output.events import event_line  # noqa: PLC0415 - not loaded for JSON

    env.print(event_line(event, datetime.now(UTC), width=env.width, colour=env.may_colour()))
