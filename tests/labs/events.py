"""Events that are written all the time, and what ``qctl events --follow`` shows of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.keys import QueueKeys
from tests.labs.drains import Running
from tests.labs.servers import wait_until


class Flow:
    """Writes an event every few milliseconds, whatever happens, and a qctl that follows them.

    Attributes:
        written: the ids that Redis has returned.
    """

    def __init__(self, url: str, keys: QueueKeys, folder: Path) -> None:
        self.written: list[str] = []
        self._url = url
        self._keys = keys
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()
        env = {**os.environ, "QCTL_REDIS_URL": url, "XDG_CONFIG_HOME": str(folder)}
        words = ("events", keys.name, "--follow", "--prefix", keys.prefix, "--output", "ndjson")
        self._follower = Running.qctl(words, env, folder)

    def _write(self) -> None:
        words = ("XADD", self._keys("events"), "*", "event", "progress", "jobId", "1")
        with contextlib.closing(connect(self._url)[1]) as client:
            while not self._over.is_set():
                # While a master dies, a write may fail although it was made.
                with contextlib.suppress(QctlError):
                    self.written.append(client.call(*words))
                time.sleep(0.005)

    @property
    def shown(self) -> list[str]:
        """The ids that qctl has printed so far."""
        return [json.loads(line)["id"] for line in self._follower.said.splitlines()]

    def go_on(self) -> None:
        """Wait until qctl has printed events that were written after this call."""
        seen = self.written[-1:]
        wait_until(lambda: self.shown[-1:] > seen, "later events to be printed", timeout_s=60)

    def end(self) -> tuple[list[str], list[str], str]:
        """Stop writing, and wait until qctl has printed the last event.

        Returns:
            the events that the stream has since qctl's first; all that qctl printed; its remarks.
        """
        self._over.set()
        self._thread.join()
        with contextlib.closing(connect(self._url)[1]) as client:
            kept = client.call("XRANGE", self._keys("events"), self.shown[0], "+")
        ids = [str(entry[0]) for entry in kept]
        wait_until(lambda: self.shown[-1] == ids[-1], "the last event to be printed", timeout_s=60)
        self._follower.signal(signal.SIGINT)
        return ids, self.shown, self._follower.finish().err

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._follower.close()


@contextlib.contextmanager
def followed(url: str, keys: QueueKeys, folder: Path) -> Iterator[Flow]:
    """A ``Flow`` that has begun; the queue must exist."""
    with contextlib.closing(Flow(url, keys, folder)) as flow:
        wait_until(lambda: flow.shown, "qctl to follow", timeout_s=60)
        yield flow
