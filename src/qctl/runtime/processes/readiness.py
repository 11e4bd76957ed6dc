"""Notifies PM2 (``wait_ready``) and systemd (``Type=notify``) of our state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, MutableMapping

_PM2_VARIABLES = ("NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE")
_SYSTEMD_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# systemd's socket holds few messages. When it is full, wait a little rather than lose one.
_SEND_TIMEOUT_S = 0.2
_CHUNK = 65_536


class Notifier:
    """Notifies PM2 or systemd, if one of them started this process and wants to know.

    Args:
        environ: of this process. Their variables are removed: they are not for our children.
        on_shutdown: called when PM2 sends ``shutdown`` (its option ``shutdown_with_message``).

    Attributes:
        watchdog_every_s: how often to call ``alive``; None if systemd's watchdog is off.
    """

    def __init__(
        self, environ: MutableMapping[str, str], on_shutdown: Callable[[], None] = lambda: None
    ) -> None:
        found = {name: environ.pop(name, "") for name in (*_PM2_VARIABLES, *_SYSTEMD_VARIABLES)}
        self._on_shutdown = on_shutdown
        self._pm2 = int(found["NODE_CHANNEL_FD"]) if found["NODE_CHANNEL_FD"].isdigit() else None
        self._systemd = found["NOTIFY_SOCKET"]
        usec, pid = found["WATCHDOG_USEC"], found["WATCHDOG_PID"]
        mine = not pid or pid == str(os.getpid())
        # Half of the time after which systemd kills us.
        self.watchdog_every_s = int(usec) / 2e6 if usec.isdigit() and mine else None
        if self._pm2 is not None:
            try:
                os.set_inheritable(self._pm2, False)
                os.set_blocking(self._pm2, False)
            except OSError:
                self._pm2 = None
        self._buffer = b""

    def listen(self) -> None:
        """Read PM2's messages, on the running event loop."""
        if self._pm2 is not None:
            with contextlib.suppress(OSError):
                asyncio.get_running_loop().add_reader(self._pm2, self._read, self._pm2)

    def ready(self) -> None:
        """The workers take jobs."""
        if self._pm2 is not None:
            with contextlib.suppress(OSError):
                os.write(self._pm2, b'"ready"\n')
        self._notify_systemd("READY=1")

    def reloading(self) -> None:
        """A replacement has begun; ``reloaded`` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def reloaded(self) -> None:
        """The replacement has ended."""
        self._notify_systemd("READY=1")

    def stopping(self) -> None:
        """The workers are stopping."""
        self._notify_systemd("STOPPING=1")

    def alive(self) -> None:
        """The master is not stuck."""
        self._notify_systemd("WATCHDOG=1")

    def _notify_systemd(self, text: str) -> None:
        if not self._systemd:
            return
        address = self._systemd
        if address.startswith("@"):
            address = "\0" + address[1:]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_SEND_TIMEOUT_S)
            sock.sendto(text.encode(), address)

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                if json.loads(line) == "shutdown":
                    self._on_shutdown()
