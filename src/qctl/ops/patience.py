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

# How long Redis may be away in the middle of an operation that has begun: a failover by Sentinel
# takes 30 s by its defaults, and somewhat more in practice.
AWAY_S = 60.0
# How long a call is repeated when the operator wants to stop: one cut connection must not prevent
# putting things back.
STOPPING_S = 1.0
# First and longest pause between two attempts.
_PAUSE_S = (0.02, 0.5)


class PatientClient(ForwardingClient):
    """A client that repeats what Redis did not answer, or cannot do at present.

    A command may be carried out twice, since its reply may be what was lost. So it is only for
    commands for which that is harmless: reads, and those scripts that find their own work done.

    Args:
        inner: the connection itself.
        stop: asked between attempts; once it says True, a call is repeated for at most
            ``STOPPING_S``.

    Attributes:
        patience_s: how long a call is repeated, in seconds; 0 raises at once.
        outages: the number of attempts that failed so far. Compared before and after a call, it
            says whether the call may have been carried out more than once.
        away_s: for how long in all Redis has not answered, outages that have ended.
    """

    def __init__(self, inner: Client, stop: Callable[[], bool] = lambda: False) -> None:
        super().__init__(inner)
        self._stop = stop
        self.patience_s = 0.0
        self.outages = 0
        self.away_s = 0.0
        self._away_since: float | None = None

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Repeat calls for no longer than this within the context."""
        before = self.patience_s
        self.patience_s = min(before, seconds)
        try:
            yield
        finally:
            self.patience_s = before

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        return self.repeat(lambda: self.inner.call(*command, timeout_s=timeout_s))

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
        if len(nodes) == 1 and nodes[0] is self.inner:
            return [self]
        return [_Master(self, number) for number in range(len(nodes))]

    def repeat(self, attempt: Callable[[], T]) -> T:
        """The outcome of ``attempt``, which is made again while Redis is away.

        Raises:
            QctlError: the last attempt's, when patience has run out or the operator wants to stop.
        """
        began = time.monotonic()
        pause_s, longest_s = _PAUSE_S
        while True:
            tried = time.monotonic()
            try:
                answer = attempt()
            except QctlError as error:
                if not is_outage(error):
                    raise
                self.outages += 1
                if self._away_since is None:
                    self._away_since = tried
                patience_s = min(self.patience_s, STOPPING_S) if self._stop() else self.patience_s
                if time.monotonic() - began >= patience_s:
                    raise
            else:
                if self._away_since is not None:
                    self.away_s += time.monotonic() - self._away_since
                    self._away_since = None
                return answer
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)


class _Master:
    """One master of a cluster, asked for anew in each attempt: another node may have taken over.

    Args:
        patient: the client of the whole cluster.
        number: its place among the masters.
    """

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
        """Its connection belongs to the cluster's client."""

    def _node(self) -> Client:
        masters = self._patient.inner.masters()
        return masters[min(self._number, len(masters) - 1)]
