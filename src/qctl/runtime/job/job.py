"""A job that a worker runs, as its handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from qctl.connection.address import Arg
from qctl.runtime.job.policy import JobPolicy, policy_of
from qctl.wire.encoding import encode_json
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Parent
from qctl.wire.replies import read_json, to_dict, to_int
from qctl.wire.scripts import ScriptCall
from qctl.wire.write import worker_calls

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    # D: the type of a job's data. S: the type of the state that the worker's lifespan yields.
    D = DefaultTypeVar("D", default=Any)
    S = DefaultTypeVar("S", default=Any)
else:
    D, S = TypeVar("D"), TypeVar("S")
# Stands for a payload that has not been parsed yet.
_UNREAD = object()


class Link(Protocol):
    """Sends the calls of a job to Redis."""

    keys: QueueKeys

    @property
    def state(self) -> Any:
        """What the worker's lifespan has yielded. Raises UsageError if there is no such state."""

    async def run_call(self, call: ScriptCall) -> Any: ...

    async def command(self, *command: Arg) -> Any: ...


class Job(Generic[D, S]):
    """A job that this worker runs, as ``async def`` handlers get it.

    Methods that call Redis wait while Redis is away.

    Types: in a handler's annotation, ``Job[Welcome]`` makes the worker check the data and make a
    ``Welcome`` of it (``handlers/payloads.py``). ``Job[Welcome, Pools]`` also states the type of
    ``state``, for type checkers only.

    Attributes:
        id: unique in its queue.
        name: decides which handler runs the job.
        token: this worker's token in the job's lock.
        link: sends the job's calls to Redis.
        fields: the job's hash as it was when this worker fetched it (wire format 3.1).
        attempts_made: how many attempts were counted before this run.
        lost_lock: whether this worker has lost the lock, or could not renew it in time because
            Redis does not answer. Another worker may then run the job, and the result of this run
            is probably not stored.
    """

    __slots__ = (
        "_data",
        "attempts_made",
        "fields",
        "id",
        "is_ending",
        "is_usual",
        "link",
        "lost_lock",
        "name",
        "policy",
        "renewed_at",
        "started_at",
        "task",
        "token",
    )

    if not TYPE_CHECKING:
        # Before Python 3.13, a ``TypeVar`` has no default. So without this, ``Job[Welcome]``, which
        # gives only one of two types, would raise an error.
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(
        self,
        job_id: str,
        fields: dict[str, str],
        token: str,
        link: Link,
        now: float,
        *,
        is_usual: bool = False,
    ) -> None:
        self.fields = fields
        self.link = link
        self._data: Any = _UNREAD
        self.id = job_id
        self.name = fields.get("name", "")
        self.token = token
        self.policy: JobPolicy = policy_of(fields.get("opts", ""))
        made = fields.get("attemptsMade") or fields.get("atm")
        self.attempts_made = (to_int(made) or 0) if made else 0
        # Whether the job's hash had only the fields that every job gets. Redis completes such a job
        # faster.
        self.is_usual = is_usual
        self.lost_lock = False
        # Whether the outcome is being sent to Redis: the run has ended, or the job must not run.
        self.is_ending = False
        # By the event loop's clock, in seconds.
        self.started_at = self.renewed_at = now
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.queue} {self.id} {self.name!r}>"

    @property
    def queue(self) -> str:
        """The name of the job's queue."""
        return self.link.keys.name

    @property
    def data(self) -> D:
        """The payload; the raw text if it is not JSON."""
        if self._data is _UNREAD:
            self._data, _ = read_json(self.fields.get("data"), {})
        data: D = self._data
        return data

    def convert_data(self, convert: Callable[[Any], Any]) -> None:
        """Set ``data`` to ``convert(payload)``. The payload in Redis stays as it is."""
        self._data = convert(read_json(self.fields.get("data"), {})[0])

    @property
    def state(self) -> S:
        """What the worker's lifespan has yielded.

        Raises:
            UsageError: the worker has no lifespan, or the job is isolated.
        """
        state: S = self.link.state
        return state

    @property
    def opts(self) -> Mapping[str, Any]:
        """The options that the job was added with, in BullMQ's short form (wire format 3.2)."""
        opts, _ = read_json(self.fields.get("opts"), {})
        return opts if isinstance(opts, dict) else {}

    @property
    def attempts_started(self) -> int:
        """How often the job was started, this run included."""
        return (to_int(self.fields.get("ats")) or 0) + 1

    @property
    def attempts_max(self) -> int:
        """How many attempts the job has in all, at least 1."""
        return max(self.policy.attempts, 1)

    @property
    def stalled_count(self) -> int:
        """How often the job has stalled: its lock expired before the job had ended."""
        return to_int(self.fields.get("stc")) or 0

    @property
    def priority(self) -> int:
        """0 for none. Jobs without a priority run first; after them, 1 runs before 2."""
        return to_int(self.fields.get("priority")) or 0

    @property
    def added_at_ms(self) -> int | None:
        """When the job was added, epoch ms; None if unknown."""
        return to_int(self.fields.get("timestamp"))

    @property
    def scheduler(self) -> str | None:
        """The id of the scheduler that made the job, or None."""
        return self.fields.get("rjk")

    @property
    def progress(self) -> Any:
        """The last reported progress, perhaps of an earlier run; 0 for none, None if not JSON."""
        value, is_json = read_json(self.fields.get("progress"), 0)
        return value if is_json else None

    @property
    def parent(self) -> Mapping[str, Any] | None:
        """``{"id": …, "queueKey": …}`` of the job's parent in a flow, or None."""
        parent, _ = read_json(self.fields.get("parent"), None)
        return parent if isinstance(parent, dict) else None

    @property
    def as_parent(self) -> Parent:
        """This job as the argument of ``Queue.add(parent=…)``, to add a child to this job."""
        return Parent(self.id, self.queue)

    async def update_progress(self, value: Any) -> None:
        """Report how far the job is: a number, or any other JSON value.

        Raises:
            UsageError: the value is not JSON.
            LookupError: the job no longer exists.
        """
        text = encode_json(value, "the progress")
        self.fields["progress"] = text
        await self._update("progress", text)

    async def update_data(self, data: Any) -> None:
        """Replace the payload, for this and later runs.

        Raises:
            UsageError: the data is not JSON.
            LookupError: the job no longer exists.
        """
        text = encode_json(data, "the job's data")
        await self._update("data", text)
        self.fields["data"] = text
        self._data = data

    async def log(self, row: str) -> int:
        """Add a row to the job's log, and return how many rows the log has now.

        Raises:
            LookupError: the job no longer exists.
        """
        return int(await self._update("log", row, self.policy.keep_logs))

    async def children_values(self) -> dict[str, Any]:
        """Read the return values of completed children, by the child's key ``bull:QUEUE:ID``."""
        flat = await self.link.command("HGETALL", self.link.keys.processed(self.id))
        return {key: read_json(value, None)[0] for key, value in to_dict(flat).items()}

    async def ignored_failures(self) -> dict[str, str]:
        """Read the errors of children whose failure is ignored (``OnFailure``), by child key."""
        return to_dict(await self.link.command("HGETALL", self.link.keys.ignored_failures(self.id)))

    async def _update(self, what: str, value: str, keep: int | None = None) -> Any:
        call = worker_calls.update_job(self.link.keys, self.id, what, value, keep)
        answer = await self.link.run_call(call)
        if answer == worker_calls.MISSING:
            raise LookupError(f"job {self.id} of {self.queue} no longer exists")
        return answer


class SyncJob(Generic[D, S]):
    """A ``Job`` for plain ``def`` handlers: the same attributes, and methods that block."""

    # For type checkers; ``__getattr__`` reads the attributes.
    id: str
    name: str
    queue: str
    data: D
    state: S
    opts: Mapping[str, Any]
    attempts_made: int
    attempts_started: int
    attempts_max: int
    stalled_count: int
    priority: int
    added_at_ms: int | None
    scheduler: str | None
    progress: Any
    parent: Mapping[str, Any] | None
    as_parent: Parent
    lost_lock: bool

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, job: Job[D, S], loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    def __repr__(self) -> str:
        return repr(self._job)

    def update_progress(self, value: Any) -> None:
        """See ``Job.update_progress``."""
        self._wait(self._job.update_progress(value))

    def update_data(self, data: Any) -> None:
        """See ``Job.update_data``."""
        self._wait(self._job.update_data(data))

    def log(self, row: str) -> int:
        """See ``Job.log``."""
        return self._wait(self._job.log(row))

    def children_values(self) -> dict[str, Any]:
        """See ``Job.children_values``."""
        return self._wait(self._job.children_values())

    def ignored_failures(self) -> dict[str, str]:
        """See ``Job.ignored_failures``."""
        return self._wait(self._job.ignored_failures())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
