"""``qctl events``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.frame import Environment, new_app, with_environment
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.ops.follow.events import EventFilter, QueueEvent
    from qctl.wire.keys import QueueKeys

app = new_app()


@app.command("events")
@with_environment
def events(
    env: Environment,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name")],
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new ones until Ctrl-C")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only after this: 30s, 10m, 2h, a time, an event's id"
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="NAME", help="Only this kind; may be repeated"),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Only those about this job")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="The last N, 50 by default; with --follow, leave after N",
        ),
    ] = None,
) -> None:
    """What happens in a queue, as it happens.

    BullMQ keeps about the last 10,000 events of a queue. Without --follow the last ones are shown;
    with it and without --since, only what comes from now on.
    """
    from qctl.ops.follow import events as ops  # noqa: PLC0415 - not for --help
    from qctl.ops.queues.find import find_queues  # noqa: PLC0415

    if follow and env.output == "json":
        raise UsageError(
            "--follow has no end that one JSON object could wait for",
            hint="use --output ndjson: one object an event",
        )
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    ops.require_stream(snapshot)
    after = None if since is None else ops.start_of(client, since)
    for doubt in ops.doubts(names or ()):
        env.note(doubt)
    wanted = ops.EventFilter(frozenset(names or ()), job_id)
    if follow:
        _follow(env, snapshot.keys, wanted, after, limit)
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
        from qctl.output.events import summary  # noqa: PLC0415 - not for JSON

        if remark := summary(page, since_at=ops.moment_of(after), filtered=wanted.is_set):
            env.note(remark)


def _follow(
    env: Environment, keys: QueueKeys, wanted: EventFilter, after: str | None, limit: int | None
) -> None:
    from qctl.ops.follow.events import Remark, follow_events  # noqa: PLC0415 - not for --help

    _, client = env.redis()
    shown = 0
    try:
        for event in follow_events(client, keys, wanted, after=after):
            if isinstance(event, Remark):
                env.note(event.text)
                continue
            _show(env, event)
            env.streams.stdout.flush()
            shown += 1
            if shown == limit:
                return
    except KeyboardInterrupt:
        # The way out, and no failure.
        return


def _show(env: Environment, event: QueueEvent) -> None:
    if env.output == "ndjson":
        env.emit_json(event)
        return
    from qctl.output.events import event_line  # noqa: PLC0415 - not for JSON

    env.line(event_line(event, datetime.now(UTC), width=env.width, colour=env.colour()))
