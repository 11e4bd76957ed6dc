"""A client that waits for Redis during an outage: a cut connection, a failover, a restart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from qctl.connection.address import Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import QctlError, ReplyError, is_outage

T = TypeVar("T")

# How long to wait for Redis in the middle of an operation: with Sentinel's defaults, a failover
# takes a little more than 30 s.
AWAY_S = 60.0
# How long a call is repeated when the operator wants to stop. Not 0: undoing the operation must
# survive a cut connection.
STOPPING_S = 1.0
# An answer that takes longer than this is worth a remark.
SILENT_S = 1.0
# The first and the longest pause between two attempts, in seconds.
_PAUSE_S = (0.02, 0.5)


class Pulse:
    """Shows who has been asked and has not answered yet. Another thread may read it."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}

    def ask(self, whom: str, allowed_s: float = 0.0) -> None:
        """Record a question, unless an earlier question to ``whom`` has no answer yet.

        Args:
            allowed_s: how long the answer may rightly take, for example to a command that blocks.
        """
        self._asked_at.setdefault(whom, time.monotonic() + allowed_s)

    def answered(self, whom: str) -> None:
        """Record an answer."""
        self._asked_at.pop(whom, None)

    @contextlib.contextmanager
    def asking(self, whom: str) -> Iterator[None]:
        """Record a question for the time of this context."""
        self.ask(whom)
        try:
            yield
        finally:
            self.answered(whom)

    def waited_s(self, whom: str) -> float:
        """For how many seconds ``whom`` has owed an answer; 0 if ``whom`` owes none."""
        asked_at = self._asked_at.get(whom)
        return 0.0 if asked_at is None else max(time.monotonic() - asked_at, 0.0)

    def silent(self) -> list[tuple[str, float]]:
        """Those that have not answered for ``SILENT_S``, and for how many seconds."""
        waits = [(whom, self.waited_s(whom)) for whom in [*self._asked_at]]
        return [(whom, for_s) for whom, for_s in waits if for_s >= SILENT_S]


class PatientClient(ForwardingClient):
    """A client that repeats a command while Redis does not answer, or cannot carry it out.

    If only the reply is lost, the command is carried out twice. So use this client only for reads,
    and for scripts that do no harm when they run twice.

    Args:
        stop: called between attempts; once it returns True, a call is repeated for at most
            ``STOPPING_S``, and if Redis is still away then, no other call is tried.
        pulse: shows whether Redis answers.

    Attributes:
        patience_s: how long a call is repeated, in seconds; 0 raises at once.
        outages: how many attempts have failed so far. If it grows during a call, the call may have
            been carried out more than once.
        away_s: the length of all outages that have ended, in seconds.
        has_given_up: whether calls fail at once, without an attempt. An attempt can take 10 s if a
            network drops packets, and the end of an operation makes many calls.
    """

    def __init__(
        self,
        inner: Client,
        stop: Callable[[], bool] = lambda: False,
        pulse: Pulse | None = None,
    ) -> None:
        super().__init__(inner)
        self._stop = stop
        self.pulse = pulse or Pulse()
        self.patience_s = 0.0
        self.outages = 0
        self.away_s = 0.0
        self.has_given_up = False
        self._away_since: float | None = None
        # The error of the last attempt that failed.
        self._trouble: QctlError | None = None

    def give_up(self) -> None:
        """Let every call fail at once, if Redis is away now."""
        self.patience_s = 0.0
        self.has_given_up = self._away_since is not None

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Within this context, repeat a call for ``seconds`` at most."""
        before = self.patience_s
        self.patience_s = min(before, seconds)
        try:
            yield
        finally:
            self.patience_s = before

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        return self.repeat(lambda: self.inner.call(*command, timeout_s=timeout_s), timeout_s)

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        def attempt() -> list[Any]:
            replies = self.inner.pipeline(commands)
            for reply in replies:
                if isinstance(reply, ReplyError) and is_outage(reply):
                    raise reply
            return replies

        return self.repeat(attempt)

    def masters(self) -> Sequence[Client]:
        nodes = self.repeat(self.inner.masters)
        # Without a cluster, the client is its own master.
        if len(nodes) == 1 and nodes[0] is self.inner:
            return [self]
        return [_Master(self, number) for number in range(len(nodes))]

    def repeat(self, attempt: Callable[[], T], allowed_s: float = 0.0) -> T:
        """Call ``attempt`` until it succeeds, and return its result.

        Args:
            allowed_s: see ``Pulse.ask``.

        Raises:
            QctlError: the error is not an outage, or the outage is longer than ``patience_s``.
        """
        if self.has_given_up and self._trouble is not None:
            raise self._trouble
        began = time.monotonic()
        pause_s, longest_s = _PAUSE_S
        while True:
            tried = time.monotonic()
            self.pulse.ask("Redis", allowed_s)
            try:
                answer = attempt()
            except QctlError as error:
                if not is_outage(error):
                    self.pulse.answered("Redis")
                    raise
                self.outages += 1
                self._trouble = error
                if self._away_since is None:
                    self._away_since = tried
                is_stopping = self._stop()
                patience_s = min(self.patience_s, STOPPING_S) if is_stopping else self.patience_s
                if time.monotonic() - began >= patience_s:
                    away_s = time.monotonic() - self._away_since
                    self.has_given_up = is_stopping and away_s >= STOPPING_S
                    raise
            else:
                self.pulse.answered("Redis")
                if self._away_since is not None:
                    self.away_s += time.monotonic() - self._away_since
                    self._away_since = None
                return answer
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)


class _Master:
    """One master of a cluster, looked up at each attempt, because another node may take over."""

    def __init__(self, patient: PatientClient, number: int) -> None:
        self._patient = patient
        self._number = number

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        return self._patient.repeat(lambda: self._node().call(*command, timeout_s=timeout_s))

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        return self._patient.repeat(lambda: self._node().pipeline(commands))

    def masters(self) -> Sequence[Client]:
        return [self]

    def close(self) -> None:
        """Do nothing: the connection belongs to the cluster's client."""

    def _node(self) -> Client:
        masters = self._patient.inner.masters()
        # There may be fewer masters now.
        return masters[min(self._number, len(masters) - 1)]
