"""A separate process that ends a process under supervisord and starts it again.

supervisord has no call that restarts a process: one call stops the process, and another starts it.
If qctl died between the two, the process would stay stopped. So a detached helper, which goes on
when qctl is killed, makes both calls. The helper's arguments are one line of JSON on standard
input, because a process list must not show the password that the address may hold:

- ``address``: the fields of ``Address``;
- ``key``, ``pid``: the process, and its pid (null if it does not run);
- ``signal``: the signal to send, e.g. ``SIGTERM``, never followed by SIGKILL; or "" to have
  supervisord stop the process as configured, with SIGKILL if it does not end in time.

The exit code is 0 if the process was started again, or if somebody else has started or stopped it;
otherwise 1, with the reason as a line on standard error.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from qctl.errors import ManagerUnreachableError
from qctl.manage.supervisord import rpc
from qctl.manage.supervisord.address import Address

# How long supervisord may be away, for example because it is being restarted.
_AWAY_S = 60.0
# How long a process may take to end. It ends after its last job, which may be long.
_END_S = 24 * 3600.0
_POLL_S = 0.1
_ENDED = {"STOPPED", "EXITED", "FATAL"}


class _RefusedError(Exception):
    """Why the process was not restarted."""


class Helper:
    """Restarts one process; see above for the arguments."""

    def __init__(self, address: Address, key: str, pid: int | None, signal: str) -> None:
        self._address = address
        self._key = key
        self._pid = pid
        self._signal = signal

    def run(self) -> None:
        """End the process, and start it once it has ended.

        Raises:
            _RefusedError, ManagerUnreachableError: the process was not started.
        """
        self._end()
        until = time.monotonic() + _END_S
        while (state := self._state()) and state not in _ENDED:
            if time.monotonic() > until:
                raise _RefusedError("it did not end within a day")
            time.sleep(_POLL_S)
        # After a signal, the state is EXITED. If it is STOPPED, somebody else stopped the process.
        if state == "EXITED" or (state and not (self._signal and state == "STOPPED")):
            self._start()

    def _end(self) -> None:
        """Make the process end, unless it has ended or was replaced already."""
        until = time.monotonic() + _AWAY_S
        is_asked = False
        while state := self._state():
            # If ``is_asked``, the answer to our request was lost, but the stop is probably ours.
            if state in {"STOPPING", "STOPPED"} and self._pid and not is_asked:
                raise _RefusedError("somebody has stopped it")
            if state == "STOPPING" or state in _ENDED:
                return
            try:
                if self._signal:
                    self._call("signalProcess", self._key, self._signal)
                else:
                    self._call("stopProcess", self._key, False)
            except rpc.FaultError as fault:
                if fault.code != rpc.NOT_RUNNING:
                    raise _RefusedError(str(fault)) from None
            except ManagerUnreachableError:
                if time.monotonic() > until:
                    raise
            else:
                return
            is_asked = True
            time.sleep(_POLL_S)

    def _start(self) -> None:
        until = time.monotonic() + _AWAY_S
        while True:
            try:
                self._call("startProcess", self._key, False)
            except rpc.FaultError as fault:
                if fault.code == rpc.ALREADY_STARTED:
                    return
                why = self._info().get("spawnerr") if fault.code == rpc.SPAWN_ERROR else ""
                raise _RefusedError(str(why or fault)) from None
            except ManagerUnreachableError:
                if time.monotonic() > until:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def _state(self) -> str:
        """The name of the process's state; "" if the process was replaced or removed."""
        info = self._info()
        pid = info.get("pid")
        return "" if pid and pid != self._pid else str(info.get("statename", ""))

    def _info(self) -> dict[str, Any]:
        until = time.monotonic() + _AWAY_S
        while True:
            try:
                info = self._call("getProcessInfo", self._key)
            except rpc.FaultError as fault:
                if fault.code == rpc.BAD_NAME:
                    return {}
                if fault.code != rpc.SHUTDOWN_STATE or time.monotonic() > until:
                    raise _RefusedError(str(fault)) from None
            except ManagerUnreachableError:
                if time.monotonic() > until:
                    raise
            else:
                return info if isinstance(info, dict) else {}
            time.sleep(_POLL_S)

    def _call(self, method: str, *params: object) -> Any:
        return rpc.call(self._address, f"supervisor.{method}", *params)


def main() -> str | None:
    """Run the helper; return why the process was not started, or None."""
    request = json.loads(sys.stdin.readline())
    fields = request["address"]
    socket = fields.pop("socket")
    address = Address(Path(socket) if socket else None, **fields)
    try:
        Helper(address, request["key"], request["pid"], request["signal"]).run()
    except _RefusedError as error:
        return str(error)
    except ManagerUnreachableError as error:
        return f"{error.what}: {error.why}"
    return None


if __name__ == "__main__":
    sys.exit(main())
