"""What one drain knows while it is under way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from qctl.config.settings import Settings
from qctl.connection.address import Address
from qctl.errors import QctlError, ReplyError, is_outage
from qctl.manage.protocol import ManagedProcess
from qctl.ops.drain.inventory import Inventory
from qctl.ops.drain.lease import Guard
from qctl.ops.drain.ledger import Ledger
from qctl.ops.drain.plan import DrainPlan, running_jobs
from qctl.ops.drain.steps import RunningJob
from qctl.ops.patience import PatientClient
from qctl.ops.processes.restart import POLL_S, Expectation, Restart
from qctl.ops.processes.targets import Connections
from qctl.wire.events import READ_COUNT, Event, event_order, last_event_id, read_events
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import Holder
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.missed_events import read_gaps
from qctl.wire.write.pausing import disown_pause, pause

# The longest time in which a wish to stop goes unheard.
BLOCK_MS = 200


class TimedOut(Exception):  # noqa: N818 - an outcome
    """Jobs are still running at the end of the time allowed."""


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How to drain.

    Args:
        timeout_s: the longest wait for active jobs, in seconds; in a roll, for those of a process.
        restart_on_timeout: restart anyway when that is over, instead of putting things back.
        keep_paused: leave the queues paused at the end if all went well. A drain without a restart
            always does: what is drained must not fill up again before the operator has acted.
        verb: ``drain`` or ``restart``, for the pause note.
    """

    timeout_s: float = 600.0
    restart_on_timeout: bool = False
    keep_paused: bool = False
    verb: str = "drain"


@dataclass(slots=True)
class DrainState:
    """One drain under way.

    Args:
        client: sits out a Redis that is away; see there for what may be sent over it.
        cursors: the last event seen of each queue.
        paused_here: queues that this drain paused, or may have, and that are not resumed yet.
        resumed_here: those that it has resumed.
        is_confirmed: whether no failover can undo that, as far as is known.
        is_left: whether the watchdog has to resume the rest.
        paused_by_others: queues that somebody else paused as well, after us.
        inventory: the jobs of all queues, running or not.
        missed: queues of whose events some may have been cut off before they were read.
        resumed_by_others: queues that somebody else has resumed.
        forced: those of them that were resumed with ``qctl resume --force``.
        resumes: ids of the events of our own resumes.
        own_pauses: ids of the events of our own pauses.
        resumed_lately: how often somebody else resumed each queue since the last restart.
        times_paused_again: how often each queue was paused again for that reason.
        resumed_at_start: queues that were resumed while a new process started, with its target.
        disowned: queues whose pause is no longer ours, since somebody else wants it, too.
        to_disown: those of them of which Redis does not know yet.
        unchecked: from where on it is not known yet whether events were cut off.
        forgotten: queues whose pause Redis had lost, so that they were paused again.
        left: processes that are not restarted yet.
        has_started: whether a job has started since the last pause.
        active: the active jobs at the last look.
        in_the_way: jobs that were running when their process was restarted all the same.
        in_doubt: jobs that ran when another process was restarted all the same; they may be of one
            that is new already.
        is_process_gone: a process that was to be restarted had ended before.
        paused_at_end: queues that are paused at the end; None when that could not be read.
        proved: the restarts of this drain whose new process got ready, as in ``new_pids``.
        ignored_running: jobs of queues that the drain ignores that ran just before the restart;
            None when that is unknown.
        held: lock tokens of the jobs that a roll waited for when its time was up.
    """

    client: PatientClient
    address: Address
    settings: Settings
    plan: DrainPlan
    options: DrainOptions
    holder: Holder
    stop: Callable[[], bool]
    guard: Guard
    ledger: Ledger = field(default_factory=Ledger)
    inventory: Inventory = field(default_factory=Inventory)
    cursors: dict[QueueKeys, str] = field(default_factory=dict)
    missed: set[QueueKeys] = field(default_factory=set)
    paused_here: set[QueueKeys] = field(default_factory=set)
    resumed_here: set[QueueKeys] = field(default_factory=set)
    is_confirmed: bool = False
    is_left: bool = False
    paused_any: bool = False
    paused_by_others: set[QueueKeys] = field(default_factory=set)
    resumed_by_others: set[QueueKeys] = field(default_factory=set)
    forced: set[QueueKeys] = field(default_factory=set)
    resumes: set[str] = field(default_factory=set)
    own_pauses: set[str] = field(default_factory=set)
    resumed_lately: Counter[QueueKeys] = field(default_factory=Counter)
    times_paused_again: Counter[QueueKeys] = field(default_factory=Counter)
    resumed_at_start: dict[QueueKeys, str] = field(default_factory=dict)
    forgotten: set[QueueKeys] = field(default_factory=set)
    left: list[ManagedProcess] = field(default_factory=list)
    disowned: set[QueueKeys] = field(default_factory=set)
    to_disown: set[QueueKeys] = field(default_factory=set)
    unchecked: dict[QueueKeys, str] = field(default_factory=dict)
    paused_at_ms: int | None = None
    resumed_at_ms: int | None = None
    has_started: bool = False
    active: list[ActiveJob] = field(default_factory=list)
    in_the_way: list[ActiveJob] = field(default_factory=list)
    in_doubt: list[ActiveJob] = field(default_factory=list)
    ignored_running: int | None = None
    held: frozenset[str | None] | None = None
    is_process_gone: bool = False
    old_pids: list[int] = field(default_factory=list)
    new_pids: list[int] = field(default_factory=list)
    proved: list[Restart] = field(default_factory=list)
    paused_at_end: frozenset[QueueKeys] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def queues(self) -> tuple[QueueKeys, ...]:
        return self.plan.queues

    def pause(self, keys: QueueKeys) -> bool:
        """Pause a queue and follow it from there; whether that, and not somebody before us, did it.

        One that a drain has left behind becomes ours.
        """
        before = last_event_id(self.client, keys)
        # Until the answer is here, it may be paused by us.
        self.paused_here.add(keys)
        done = pause(
            self.client,
            keys,
            self.holder,
            take_over=keys in self.plan.left_behind,
            use_list=keys in self.plan.mixed,
        )
        # A queue that is paused already is followed from before.
        self.begin(keys, done.event_id or before, changed=done.changed)
        return done.changed

    def begin(self, keys: QueueKeys, cursor: str, *, changed: bool) -> None:
        """Follow a queue from an event on.

        Args:
            cursor: id of the event of our pause, or of the last one before.
            changed: whether we paused it, rather than somebody before us.
        """
        self.cursors[keys] = cursor
        if changed:
            self.own_pauses.add(cursor)
            self.paused_here.add(keys)
            self.paused_any = True
            self.paused_at_ms = self.paused_at_ms or int(cursor.partition("-")[0])
        else:
            self.paused_here.discard(keys)

    def is_ours(self, keys: QueueKeys) -> bool:
        """Whether the pause note of a queue is ours, unless somebody took it away."""
        return keys in self.paused_here and keys not in self.disowned

    def paused_again(self, keys: QueueKeys, event_id: str) -> bool:
        """Take note of our pause of a queue.

        Args:
            event_id: of the pause.

        Returns:
            whether it is another one than those before.
        """
        if event_id in self.own_pauses:
            return False
        self.own_pauses.add(event_id)
        self.paused_here.add(keys)
        self.paused_any = True
        self.paused_at_ms = self.paused_at_ms or int(event_id.partition("-")[0])
        self.disowned.discard(keys)
        self.to_disown.discard(keys)
        self.resumed_lately[keys] += 1
        self.times_paused_again[keys] += 1
        return True

    def follow(self, *, wait: bool = False) -> list[tuple[QueueKeys, Event]]:
        """Take in new events.

        Args:
            wait: whether to wait for the first one, for at most ``BLOCK_MS``.
        """
        before = dict(self.cursors)
        events = read_events(self.client, self.cursors, block_ms=BLOCK_MS if wait else 0)
        # First what needs no Redis, which may go away: these events do not come again.
        self.ledger.follow(events)
        self.inventory.follow(events)
        for keys, event in events:
            self.unchecked.setdefault(keys, before[keys])
            self._follow_pauses(keys, event)
            if event.name in {"active", "paused"}:
                self.has_started = event.name == "active"
        for keys in [*self.to_disown]:
            # In Redis, so that the watchdog knows it, too.
            disown_pause(self.client, keys, self.holder.owner)
            self.to_disown.discard(keys)
        if self.unchecked:
            self._note_gaps(self.unchecked)
            self.unchecked.clear()
        return events

    def _follow_pauses(self, keys: QueueKeys, event: Event) -> None:
        if event.name == "paused" and event.id in self.own_pauses:
            self.resumed_at_ms = None
        elif event.name == "paused":
            self.paused_by_others.add(keys)
            self.disowned.add(keys)
            self.to_disown.add(keys)
        elif event.name == "resumed":
            self.paused_by_others.discard(keys)
            self.resumed_at_ms = event.at_ms
            if self.is_left and keys in self.paused_here:
                # By the watchdog, which has made it its own.
                self.paused_here.discard(keys)
                self.resumed_here.add(keys)
            elif event.id not in self.resumes:
                self.resumed_by_others.add(keys)
            if event.is_forced:
                self.forced.add(keys)

    def _note_gaps(self, cursors: dict[QueueKeys, str]) -> None:
        gaps = read_gaps(self.client, {k: at for k, at in cursors.items() if k not in self.missed})
        if gaps:
            self.missed.update(gaps)
            self.ledger.miss()

    def catch_up(self) -> None:
        """Take in all events up to now, however many there are."""
        goals = {keys: event_order(last_event_id(self.client, keys)) for keys in self.cursors}
        while any(event_order(self.cursors[keys]) < goal for keys, goal in goals.items()):
            if not self.follow():
                break
        # A stream that was deleted, or has come back older, has no news that would show it.
        self._note_gaps(self.cursors)

    def rest(self) -> None:
        """Take in events for a moment: they may come fast, and the stream keeps only so many."""
        until = time.monotonic() + POLL_S
        try:
            with self.client.at_most(0.0):
                while len(self.follow()) >= READ_COUNT and time.monotonic() < until:
                    pass
        except QctlError as error:
            if not is_outage(error):
                raise
        time.sleep(max(until - time.monotonic(), 0))

    def expectation(self, process: ManagedProcess, connections: Connections | None) -> Expectation:
        """What the successor of a process must show.

        Args:
            connections: who is connected, the process included.
        """
        names = frozenset(keys.name for keys in self.queues)
        plan = self.plan
        by_address = bool(
            plan.connections and plan.target and plan.connections.queues_of(plan.target.processes)
        )
        served = connections.queues_of([process]) if connections else set()
        return Expectation(
            # Where addresses could not be matched, every queue must get a new worker.
            queues=frozenset(served & names) if by_address else names,
            by_address=by_address,
            prefix=self.settings.prefix,
            db=self.address.db,
        )

    def redis_now_ms(self) -> int:
        """Redis' time, in epoch milliseconds."""
        try:
            seconds, micros = self.client.call("TIME")
        except ReplyError:
            # Not granted: our own clock, which only matters for a span that is still open.
            return int(time.time() * 1000)
        return int(seconds) * 1000 + int(micros) // 1000

    def shown(self, *, orphans: bool) -> tuple[RunningJob, ...]:
        """The active jobs at the last look, for the operator."""
        jobs = [job for job in self.active if job.is_orphan is orphans]
        return running_jobs(jobs, self.plan.durations, int(time.time() * 1000))
