"""The errors that the last ``qctl doctor`` found, for ``status`` to mention."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Address
from qctl.ops.state_file import StateFile
from qctl.ops.times import utc_datetime

# Errors that are older are not mentioned.
MAX_AGE_S = 3600.0
_MAX_TITLES = 3


@dataclass(frozen=True, slots=True)
class DoctorErrors:
    """Errors that a run of ``doctor`` on all queues has found. They may be fixed by now.

    Args:
        age_s: how long ago the run ended, in seconds.
        count: how many errors there were, at least 1.
        first: the first of them, each as ``SUBJECT: what``.
    """

    examined_at: datetime
    age_s: float
    count: int
    first: tuple[str, ...]


class DoctorMemory:
    """Keeps the errors in the state folder, one file for each address, user and prefixes.

    Args:
        state_home: qctl's folder for state.
        server: the ``run_id`` of the server. Another server at the same address, for example
            through a tunnel, has other errors.
    """

    def __init__(self, state_home: Path, address: Address, prefixes: Prefixes, server: str) -> None:
        self._file = StateFile(state_home, "doctor", address, prefixes)
        self._server = server

    def remember(self, titles: Sequence[str]) -> None:
        """Replace the remembered errors. If the file cannot be written, nothing is remembered."""
        with contextlib.suppress(OSError):
            if not titles:
                self._file.delete()
                return
            record = {"server": self._server, "at_s": time.time(), "count": len(titles)}
            self._file.write({**record, "first": list(titles[:_MAX_TITLES])})

    def recall(self) -> DoctorErrors | None:
        """The errors; None if none are known, which does not mean that there are none."""
        record = self._file.read()
        if record is None or record.get("server") != self._server:
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
            age_s = time.time() - float(record["at_s"])
            examined_at = utc_datetime(float(record["at_s"]) * 1000)
            first, count = tuple(map(str, record["first"])), int(record["count"])
            # If the clock was set back, the record may be from the future.
            if examined_at is not None and -1.0 < age_s < MAX_AGE_S and count > 0:
                return DoctorErrors(examined_at, max(age_s, 0.0), count, first)
        return None
