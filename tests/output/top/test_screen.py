"""The screen as text, from readings made by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from textual.pilot import Pilot

from qctl.errors import FailedError, RefusedError, UnreachableError
from qctl.ops.jobs.failures import FailureGroup, FailureReport
from qctl.ops.jobs.model import Job
from qctl.ops.live.events import Failure, Rates
from qctl.ops.live.view import LiveQueue, Reading, View
from qctl.ops.queues.status import RedisInfo
from qctl.ops.queues.workers import WorkerStatus
from qctl.output.console import table
from qctl.output.text import cells
from qctl.output.top.actions import LogTail, Proposal, Stop, Variant
from qctl.output.top.app import TopApp
from qctl.output.top.dialogs import HELP
from qctl.output.top.tables import job_columns, sparkline, status_line
from qctl.wire.read.snapshot import Counts
from tests.labs.reports import QUEUE
from tests.labs.screens import check_colours, compare
from tests.output.top.pilot import coloured_lines_of, drive, lines_of, text_of, until

AT = datetime(2026, 5, 4, 12, 0, 3, tzinfo=UTC)
NAMES = ("emails", "bad\x1b[2Jname", "a-very-long-name-of-a-queue-that-goes-on-until-it-ends")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time  # noqa: PLC0415

    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("NO_COLOR", "1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def queue(name: str, **changes: object) -> LiveQueue:
    status = replace(
        QUEUE, name=name, counts=Counts(12, 2, 1, 3, 0, 0, 100, 4), oldest_waiting_s=1.0
    )
    rates = Rates(20.0, 0.5)
    return LiveQueue(name, replace(status, **changes), None, rates, (None, 0.0, 5.0, 10.0))


class Feed:
    """Readings as they are asked for."""

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self.names = names
        self.asked: list[View] = []
        self.error: UnreachableError | None = None
        self.paused_by: str | None = None
        self.pause_s = 0.0
        self.failures: tuple[Failure, ...] = (Failure("emails", "9", "bang\x1b[31m\n", AT),)

    def read(self, view: View) -> Reading:
        self.asked.append(view)
        if self.error:
            raise self.error
        jobs = (
            Job(id="40", name="send", state="stalled", runtime_s=90.0, stalled_count=1),
            Job(
                id="41",
                name="send",
                state="active",
                runtime_s=3700.0,
                lock_ttl_ms=3_600_000,
                progress=45,
                worker="mailer",
            ),
        )
        worker = WorkerStatus(
            *("emails", "bull", "mailer", "10.0.0.1:4711"),
            *(411, "pm2:mailer", 12.0, 99 << 20, ("41",), 60),
        )
        changes = {"paused": self.paused_by is not None, "paused_by": self.paused_by}
        return Reading(
            at=AT,
            redis=RedisInfo("redis://localhost:6379/0", "7.0.15", "standalone"),
            prefix="bull",
            context=None,
            names=self.names,
            queues=tuple(queue(name, **changes) for name in view.queues),
            chosen=view.chosen,
            workers=(worker,) if view.chosen else None,
            jobs=jobs if view.chosen else None,
            jobs_total=2,
            failures=self.failures if self.names else (),
            commands=31,
            took_ms=4.0,
            pause_s=self.pause_s,
            remarks=(),
        )


class Recorder:
    """Actions that only note what was asked and done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []
        self.refusal: RefusedError | None = None
        self.failure: FailedError | None = None
        self.stopped = threading.Event()
        self.lasts = False
        self.lines = ("this will change",)
        self.variants: tuple[Variant, ...] = ()
        self.name: str | None = None

    def _propose(self, *what: str) -> Proposal:
        if self.refusal:
            raise self.refusal

        def carry_out(stop: Stop) -> Iterator[Sequence[str]]:
            if self.failure:
                raise self.failure
            while self.lasts and not stop():
                threading.Event().wait(0.01)
            if stop():
                self.stopped.set()
            self.done.append(what)
            yield [f"{' '.join(what)}: done"]

        def live() -> Iterator[str]:
            yield "waiting for 1 job"

        title = f"{what[0]} {what[1]}"
        return Proposal(title, self.lines, carry_out, live, variants=self.variants, name=self.name)

    def pause(self, queue: str) -> Proposal:
        return self._propose("pause", queue)

    def resume(self, queue: str) -> Proposal:
        return self._propose("resume", queue)

    def retry_stalled(self, queue: str, job_id: str) -> Proposal:
        return self._propose("retry-stalled", queue, job_id)

    def retry_failed(self, queue: str, job_id: str) -> Proposal:
        return self._propose("retry-failed", queue, job_id)

    def retry_group(self, queue: str, group: FailureGroup, width: int, *, exact: bool) -> Proposal:
        assert width == 75
        return self._propose("retry-group", queue, str(group.where), f"exact={exact}")

    def drain(self, queue: str, target: str | None, width: int) -> Proposal:
        assert width == 75
        return self._propose("drain", queue, str(target))


def failure_report(*, complete: bool = True) -> FailureReport:
    groups = [
        FailureGroup(
            value=value,
            where=f"shape = {json.dumps(value)}",
            count=number,
            is_least=False,
            share=number / 100,
            first_at=None,
            last_at=None,
            example_id=str(number),
            command=f"qctl jobs retry-failed emails --where 'shape = {json.dumps(value)}'",
        )
        for value, number in (("connect ETIMEDOUT <address>", 60), ("bad \x1b[2J", 30))
    ]
    return FailureReport(
        queue="emails",
        prefix="bull",
        by="reason",
        since_at=None,
        total=100 if complete else 9000,
        scanned=100,
        counted=100,
        missing=0,
        groups=tuple(groups),
        other_count=10,
        other_groups=4,
        complete=complete,
    )


class Records:
    """Details of jobs that exist in the test only."""

    def __init__(self) -> None:
        self.rows: tuple[str, ...] = ()
        self.error: UnreachableError | None = None
        self.reports: tuple[FailureReport, ...] = (failure_report(),)

    def failures(self, queue: str) -> Iterator[FailureReport]:
        assert queue
        yield from self.reports
        if self.error:
            raise self.error

    def job(self, queue: str, job_id: str) -> tuple[str, ...]:
        return (f"id  {job_id}", f"queue  {queue}", *(f"line {n}." for n in range(100)))

    def log(self, queue: str, job_id: str) -> LogTail:
        assert queue
        assert job_id
        if self.error:
            raise self.error
        return LogTail(self.rows, len(self.rows))


def view(feed: Feed, actions: Recorder | None = None, details: Records | None = None) -> TopApp:
    return TopApp(feed.read, actions or Recorder(), details or Records(), interval_s=0.3)


SCREEN = """\
redis://localhost:6379/0  Redis 7.0.15  bull     31 cmds 4 ms/0.3 s  ok 12:00:03
▶QUEUES 1/3
  QUEUE                STATE   WAIT ACT STALL DELAY FAIL WRK OK/S ERR/S TREND
> emails               running   12   2     1     3    4   1   20   0.5      ▁▅█
  bad\\x1b[2Jname       running   12   2     1     3    4   1   20   0.5      ▁▅█
  a-very-lon…l-it-ends running   12   2     1     3    4   1   20   0.5      ▁▅█"""


def test_the_screen() -> None:
    app = view(Feed())

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "▅█", "mailer")
        lines = lines_of(app)
        assert len(lines) == 24
        assert "\n".join(lines[:6]) == SCREEN
        assert lines[10] == " ACTIVE JOBS of emails 1/2"
        assert lines[12].split() == [">", "40", "send", "-", "1m30s", "stalled", "1", "-"]
        assert lines[13].split()[:5] == ["41", "send", "45", "%", "1h1m"]
        worker = next(line for line in lines if "10.0.0.1" in line)
        assert worker.split() == [
            ">",
            "mailer",
            "10.0.0.1:4711",
            "pm2:mailer",
            "411",
            "12",
            "%",
            "99",
            "MiB",
            "1",
        ]
        failure = next(line for line in lines if "bang" in line)
        assert failure.split() == [">", "12:00:03", "emails", "9", "bang\\x1b[31m\\n"]
        await pilot.press("q")

    assert drive(app, steps) == 0


@pytest.mark.parametrize(
    ("rates", "shown"),
    [
        (Rates(20.0, 0.0, sampled=True), "~20"),
        (Rates(20.0, 0.0, at_least=True), "≥20"),
        (Rates(20.0, 0.0, sampled=True, at_least=True), "~20"),
    ],
)
def test_what_may_be_missing_is_said(rates: Rates, shown: str) -> None:
    feed = Feed()
    own = feed.read

    def read(view: View) -> Reading:
        reading = own(view)
        return replace(reading, queues=tuple(replace(q, rates=rates) for q in reading.queues))

    app = TopApp(read, Recorder(), Records(), interval_s=0.3)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, f" {shown} ", "FAILURES; some may be missing 1/1")

    drive(app, steps)


@pytest.mark.parametrize(("number", "sorts"), [(150, True), (250, False)])
def test_sorting_by_a_figure_reads_all_queues_or_says_that_they_are_too_many(
    number: int, *, sorts: bool
) -> None:
    feed = Feed(tuple(f"queue-{n:04}" for n in range(number)))
    own = feed.read

    def read(view: View) -> Reading:
        reading = own(view)
        waiting = {name: int(name[-3:]) for name in view.queues}
        rows = [
            queue(name, counts=Counts(waiting[name], 0, 0, 0, 0, 0, 0, 0)) for name in view.queues
        ]
        return replace(reading, queues=tuple(rows))

    app = TopApp(read, Recorder(), Records(), interval_s=0.3)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "> queue-0000 running", "WAIT ACT")
        await pilot.press("s", "s", "s")
        if not sorts:
            await until(pilot, app, "QUEUES not sorted by WAIT, over 200 (/ filters)")
            assert max(len(view.queues) for view in feed.asked) < 20
            await pilot.press("slash", *"queue-000", "enter", "home")
            await until(pilot, app, "> queue-0009 running", "WAIT↓")
            return
        await until(pilot, app, "> queue-0149 running", "queue-0148", "WAIT↓")
        await pilot.press("S")
        await until(pilot, app, "> queue-0000 running", "queue-0001", "WAIT↑")
        # The cursor stays on its row.
        await pilot.press("down", "S", "end")
        await until(pilot, app, "> queue-0000 running", "WAIT↓")
        await pilot.press(*"s" * 8)
        await until(pilot, app, "> queue-0000 running", "queue-0001", absent="↓")

    drive(app, steps)
    assert not sorts or max(len(view.queues) for view in feed.asked) == number


def test_jobs_are_sorted_with_unknown_values_last() -> None:
    app = view(Feed())

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "mailer")
        await pilot.press("tab", *"s" * 3)
        await until(pilot, app, "PROGRESS↓", ">  41")
        await pilot.press("S")
        # The progress of job 40 is unknown.
        await until(pilot, app, "PROGRESS↑", ">  41")
        await pilot.press("s")
        await until(pilot, app, "RUNS↓", ">  41")
        await pilot.press("S")
        await until(pilot, app, "RUNS↑", ">  40")

    drive(app, steps)


def test_what_could_not_be_read_is_no_0() -> None:
    feed = Feed()
    own = feed.read

    def read(view: View) -> Reading:
        reading = own(view)
        broken = LiveQueue("emails", None, "cannot be read", None, ())
        gone = replace(broken, name=NAMES[1], trouble="is gone")
        worker = WorkerStatus("emails", "bull", "mailer", "10.0.0.1:4711")
        job = Job(id="40", name=None, state="active", missing=True)
        return replace(
            reading, queues=(broken, gone, *reading.queues[2:]), workers=(worker,), jobs=(job,)
        )

    app = TopApp(read, Recorder(), Records(), interval_s=0.3)

    async def steps(pilot: Pilot[int]) -> None:
        text = await until(pilot, app, "unreadable", "mailer")
        lines = {
            line[1:].split()[0]: line.split() for line in text.splitlines() if line[1:].strip()
        }
        assert lines["emails"] == [">", "emails", "unreadable", *"????????"]
        assert lines["bad\\x1b[2Jname"] == ["bad\\x1b[2Jname", "gone"]
        assert lines["mailer"] == [">", "mailer", "10.0.0.1:4711", "-", *"????"]
        assert lines["40"][-3:] == ["end", "?", "-"]
        assert "?" in lines["40"]

    drive(app, steps)


def test_the_context_is_never_cut_off() -> None:
    reading = replace(Feed().read(View()), context="production")
    for width in (40, 60, 80):
        line = status_line(reading, 2.0, width=width, is_old=True)
        assert cells(line) <= width
        assert line.startswith("prod" if width == 40 else "production")


def test_dear_readings_are_made_more_seldom() -> None:
    feed = Feed()
    app = view(feed)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "mailer")
        feed.pause_s = 7.25
        await pilot.press("down")
        await until(pilot, app, "31 cmds 4 ms/7.25 s")
        asked = len(feed.asked)
        # Scrolling makes none sooner either.
        await pilot.press("up")
        await pilot.pause(1.2)
        assert len(feed.asked) == asked

    drive(app, steps)


def test_the_keys_fit_the_screen() -> None:
    app = view(Feed())

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "mailer")
        await pilot.press("?")
        text = await until(pilot, app, HELP[0], HELP[-1], "Esc closes")
        assert all(line in text for line in HELP)

    drive(app, steps)


def test_no_queue_is_no_idle_queue() -> None:
    app = view(Feed(names=()))

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "no queue exists under the prefix bull")
        await pilot.press("p", "t", "d", "down", "pagedown", "end")
        assert "Retry" in await until(pilot, app, "Choose a job first")

    drive(app, steps)


def test_of_a_thousand_queues_only_those_in_sight_are_read() -> None:
    feed = Feed(tuple(f"queue-{number:04}" for number in range(1000)))
    app = view(feed)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "queue-0001 running")
        await pilot.press("end")
        text = await until(pilot, app, "1000/1,000", "> queue-0999 running")
        assert "queue-0001" not in text
        await pilot.resize_terminal(120, 40)
        await until(pilot, app, "queue-0990  running")

    drive(app, steps)
    assert max(len(view.queues) for view in feed.asked) < 20


def test_leaving_does_not_wait_for_a_redis_that_hangs() -> None:
    feed = Feed()
    hangs, goes_on, came_back = (threading.Event() for _ in range(3))

    def read(view: View) -> Reading:
        if view.queues:
            hangs.set()
            goes_on.wait(3)
            came_back.set()
        return feed.read(view)

    app = TopApp(read, Recorder(), Records(), interval_s=0.3)

    async def steps(pilot: Pilot[int]) -> None:
        while not hangs.is_set():
            await pilot.pause(0.02)
        await pilot.press("q")

    assert drive(app, steps) == 0
    assert not came_back.is_set()
    goes_on.set()
    came_back.wait(5)


def test_old_figures_say_so_and_clocks_stop() -> None:
    feed = Feed()
    app = view(feed)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "emails")
        feed.error = UnreachableError("Redis at localhost:6379 does not answer")
        text = await until(
            pilot, app, "OLD 12:00:03", "figures are", "does not answer; trying again"
        )
        assert text.count(" old") >= 5
        feed.error = None
        await until(pilot, app, "emails", absent=" old")

    drive(app, steps)


def test_filter() -> None:
    app = view(Feed())

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "emails")
        await pilot.press("slash", *"NAME")
        text = await until(pilot, app, "QUEUES with name", "1/2", absent="> emails")
        assert "bad\\x1b[2Jname" in text
        await pilot.press("enter", "p")
        await until(pilot, app, "pause bad\\x1b[2Jname?")
        await pilot.press("n", "escape")
        await until(pilot, app, "emails", absent="QUEUES with")
        await pilot.press("slash", *"zzz")
        await until(pilot, app, "no queue has 'zzz' in its name")

    drive(app, steps)


@pytest.mark.parametrize(
    ("keys", "question", "done"),
    [
        (["p"], "pause emails?", ("pause", "emails")),
        (["r"], "resume emails?", ("resume", "emails")),
        (["tab", "t"], "retry-stalled emails?", ("retry-stalled", "emails", "40")),
        (
            ["shift+tab", "t"],
            "retry-failed emails?",
            ("retry-failed", "emails", "9"),
        ),
        (["d", "1"], "drain emails?", ("drain", "emails", "None")),
        (["d", "2"], "drain emails?", ("drain", "emails", "pm2:mailer")),
    ],
)
def test_a_key_asks_first(keys: list[str], question: str, done: tuple[str, ...]) -> None:
    actions = Recorder()
    app = view(Feed(), actions)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "pm2:mailer", "bang")
        for answer in ("n", "escape", "y") if keys == ["p"] else ("y",):
            for key in keys:
                await pilot.press(key)
                if key == "d":
                    await until(pilot, app, "1  drain; the queue stays paused")
            await until(pilot, app, question, "this will change")
            assert actions.done == []
            await pilot.press(answer)
            if answer != "y":
                await until(pilot, app, "QUEUES")
        text = await until(pilot, app, f"{' '.join(done)}: done", "Esc closes")
        assert "waiting for 1 job" not in text
        await pilot.press("escape")
        await until(pilot, app, "QUEUES")

    drive(app, steps)
    assert actions.done == [done]


def test_a_job_and_its_log_are_opened() -> None:
    details = Records()
    app = view(Feed(), details=details)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "pm2:mailer", "bang")
        await pilot.press("enter")
        await until(pilot, app, "Choose a job first")
        await pilot.press("escape", "tab", "enter")
        await until(pilot, app, "Job 40 of emails", "line 0.", "l log", "↑↓ scroll")
        await pilot.press("pagedown")
        await until(pilot, app, "Job 40 of emails", absent="line 0.")
        await pilot.press("l")
        await until(pilot, app, "Log of job 40 of emails", "no rows")
        details.rows = tuple(f"row {n}." for n in range(100))
        await until(pilot, app, "row 99.", "100 rows, read every second", absent="row 0.")
        # Who has scrolled away from the end stays there.
        await pilot.press("home")
        await until(pilot, app, "row 0.")
        details.rows += ("row 100.",)
        await until(pilot, app, "101 rows", "row 0.", absent="row 100.")
        await pilot.press("end")
        details.error = UnreachableError("Redis is away")
        await until(pilot, app, "Redis is away; trying again", "row 100.")
        await pilot.press("escape")
        await until(pilot, app, "Job 40 of emails")
        await pilot.press("escape", "shift+tab", "shift+tab", "shift+tab", "l")
        await until(pilot, app, "Choose a job first")
        # From the workers to the failures.
        await pilot.press("escape", "tab", "l")
        await until(pilot, app, "Log of job 9 of emails")

    drive(app, steps)


def test_failures_by_group() -> None:
    actions, details = Recorder(), Records()
    app = view(Feed(), actions, details)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "emails")
        await pilot.press("f")
        await until(
            pilot,
            app,
            *(
                "FAILED JOBS of emails by reason 1/3",
                "60  60.0 %",
                "bad \\x1b[2J",
                "(other: 4 groups)",
            ),
            "qctl jobs retry-failed emails --where 'shape = \"connect ETIMEDOUT <address>\"'",
        )
        await pilot.press("down", "enter")
        await until(pilot, app, "Job 30 of emails")
        await pilot.press("escape", "down", "t", "enter")
        # The other failures are no group.
        await until(pilot, app, "by reason 3/3", absent="qctl jobs retry-failed")
        await pilot.press("up", "t")
        await until(pilot, app, "retry-group emails?")
        await pilot.press("y")
        await until(pilot, app, "done", "Esc closes")
        # What is not complete says so.
        details.reports = (failure_report(complete=False),)
        await pilot.press("escape", "f")
        await until(pilot, app, "only the oldest 100 of 9,000 failed jobs were read")
        await pilot.press("t")
        await until(pilot, app, "retry-group emails?")
        await pilot.press("y")
        await until(pilot, app, "exact=False: done")
        details.reports, details.error = (), UnreachableError("Redis is away")
        await pilot.press("escape", "f")
        await until(pilot, app, "unknown", "the count ended early: Redis is away")
        await pilot.press("escape")
        await until(pilot, app, "QUEUES")

    drive(app, steps)
    assert [what[3] for what in actions.done] == ["exact=True", "exact=False"]


@pytest.mark.parametrize("screen", ["lists", "outage", "question", "failures"])
def test_screens(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ages would differ from run to run.
    monkeypatch.setattr(TopApp, "age_s", 0.0)

    def shown(width: int, height: int, colour: bool) -> list[str]:
        monkeypatch.delenv("NO_COLOR") if colour else monkeypatch.setenv("NO_COLOR", "1")
        feed, actions = Feed(), Recorder()
        actions.lines = tuple(f"change {number}." for number in range(100))
        actions.variants = (Variant("t", "--timeout 1h", lambda: actions.pause("emails")),)
        app, lines = view(feed, actions), list[str]()

        async def steps(pilot: Pilot[int]) -> None:
            await until(pilot, app, "▅█", "mailer")
            if screen == "outage":
                feed.error = UnreachableError("Redis at localhost:6379 does not answer")
            await pilot.press(*{"question": "p", "failures": "f"}.get(screen, ""))
            await until(pilot, app, _SHOWN[screen])
            await pilot.pause(0.2)
            lines.extend(coloured_lines_of(app) if colour else lines_of(app))

        drive(app, steps, (width, height))
        return lines

    compare(Path(__file__).parent / "screens" / f"{screen}.txt", shown)


def test_the_colours_of_every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    actions, details = Recorder(), Records()
    actions.name = "prod"
    app = view(Feed(), actions, details)

    async def steps(pilot: Pilot[int]) -> None:
        async def check(*parts: str) -> None:
            await until(pilot, app, *parts)
            check_colours("\n".join(coloured_lines_of(app)))

        await until(pilot, app, "pm2:mailer", "bang")
        await pilot.press("slash")
        await check("part of a queue's name")
        await pilot.press("e")
        await check("QUEUES with e")
        await pilot.press("escape", "question_mark")
        await check("next list")
        await pilot.press("escape", "d")
        await check("1  drain")
        await pilot.press("escape", "p")
        await check("type prod to confirm")
        await pilot.press("x", "enter")
        await check("another name was typed")
        await pilot.press("escape", "tab", "enter")
        await check("Job 40 of emails", "line 0.")

    drive(app, steps)


_SHOWN = {
    "lists": "▶QUEUES",
    "outage": "does not answer",
    "question": "scroll",
    "failures": "(other",
}


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (120, 40)])
def test_the_question_stays_while_the_plan_scrolls(size: tuple[int, int]) -> None:
    actions = Recorder()
    actions.lines = tuple(f"change {number}." for number in range(100))
    app = view(Feed(), actions)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "emails")
        await pilot.press("p")
        text = await until(pilot, app, "change 0.", "pause emails?", "y yes", "↑↓ scroll")
        assert "change 50." not in text
        await pilot.press("end")
        await until(pilot, app, "change 99.", "pause emails?", "y yes", absent="change 0.")
        await pilot.press("up")
        await until(pilot, app, "change 98.", "pause emails?", absent="change 99.")
        # The result takes the place of the plan and the question.
        await pilot.press("y")
        await until(pilot, app, "pause emails: done", "Esc closes", absent="pause emails?")
        assert "change" not in text_of(app)

    drive(app, steps, size)


def test_a_flag_is_a_key_of_the_question() -> None:
    actions = Recorder()
    refused = Proposal(
        "",
        ("error: others are served", "try: --include-others"),
        None,
        variants=(Variant("i", "--include-others", lambda: actions._propose("drain", "both")),),
    )
    actions.variants = (Variant("g", "--ignore-others", lambda: refused),)
    app = view(Feed(), actions)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "emails")
        await pilot.press("p")
        await until(pilot, app, "pause emails?", "with: g --ignore-others")
        await pilot.press("g")
        # What is refused cannot be confirmed.
        await until(pilot, app, "Nothing was changed", "with: i --include-others", absent="y yes")
        await pilot.press("y", "i")
        await until(pilot, app, "drain both?", "y yes")
        assert actions.done == []
        await pilot.press("y")
        await until(pilot, app, "drain both: done")

    drive(app, steps)


def test_a_refusal_is_shown_in_full() -> None:
    actions = Recorder()
    actions.refusal = RefusedError(
        "queue emails is being drained", why="qctl drain of ada@host\x1b holds it", hint="wait"
    )
    app = view(Feed(), actions)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "emails")
        await pilot.press("r")
        await until(
            pilot,
            app,
            "Nothing was changed",
            "error: queue emails is being drained",
            "qctl drain of ada@host\\x1b holds it",
            "try: wait",
        )

    drive(app, steps)


def test_no_password_is_shown() -> None:
    url = "redis://ada:se:cr@et@cache:6379/0"
    feed, actions = Feed(), Recorder()
    actions.refusal = RefusedError(f"refused by {url}", why=f"read {url} and {url}", hint=url)
    actions.failure = FailedError(f"failed at {url}")
    app = view(feed, actions)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "mailer")
        await pilot.press("p")
        await until(pilot, app, "Nothing was changed", "refused by redis://ada:***@cache:6379/0")
        assert "et@" not in "".join(lines_of(app))
        actions.refusal = None
        await pilot.press("escape", "p")
        await until(pilot, app, "pause emails?")
        await pilot.press("y")
        await until(pilot, app, "error: failed at redis://ada:***@cache:6379/0")
        assert "et@" not in "".join(lines_of(app))
        await pilot.press("escape")
        feed.error = UnreachableError(f"{url} does not answer")
        await until(pilot, app, "redis://ada:***@cache:6379/0 does not answer")
        assert "et@" not in "".join(lines_of(app))

    drive(app, steps)


def test_leaving_stops_what_is_under_way_first() -> None:
    actions = Recorder()
    actions.lasts = True
    app = view(Feed(), actions)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "pm2:mailer")
        await pilot.press("p")
        await until(pilot, app, "pause emails?")
        await pilot.press("y")
        await until(pilot, app, "waiting for 1 job", "s stops")
        await pilot.press("q", "escape")
        assert "waiting for 1 job" in text_of(app)
        await pilot.press("ctrl+c")

    assert drive(app, steps) == 130
    assert actions.stopped.is_set()
    assert actions.done


def test_who_paused_it() -> None:
    feed = Feed()
    feed.paused_by = "qctl pause of ada@host (pid 1)"
    app = view(feed)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "paused", "emails: paused by qctl pause of ada@host (pid 1)")

    drive(app, steps)


@pytest.mark.parametrize("size", [(40, 12), (60, 20), (80, 24), (20, 5), (200, 60)])
def test_no_line_is_wider_than_the_terminal(size: tuple[int, int]) -> None:
    app = view(Feed())

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "QUEUES")
        lines = lines_of(app)
        assert len(lines) == size[1]
        if size[1] >= 20:
            # One line each, however narrow.
            first = next(n for n, line in enumerate(lines) if "QUEUES" in line) + 2
            assert [line[0] for line in lines[first : first + 2]] == [">", " "]
            assert lines[first + 1].strip()
        await pilot.press("question_mark")
        await until(pilot, app, "Keys")

    drive(app, steps, size)


def test_sparklines() -> None:
    assert sparkline([], 4) == "    "
    assert sparkline([0.0, 0.0], 4) == "  ▁▁"
    assert sparkline([9.0, None, 1.0, 2.0], 3) == " ▅█"


@pytest.mark.parametrize(
    ("elapsed_s", "runs", "lock"),
    [(0.0, "40s", "28s"), (10.0, "50s", "18s"), (30.0, "1m10s", "over?")],
)
def test_clocks_go_on_between_readings(elapsed_s: float, runs: str, lock: str) -> None:
    job = Job(id="1", name="send", state="active", runtime_s=40.0, lock_ttl_ms=28_000)
    text = table(job_columns(elapsed_s), [job], width=80)
    assert f" {runs} " in text
    assert lock in text
