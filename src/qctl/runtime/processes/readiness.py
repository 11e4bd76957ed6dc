"""Notifies PM2 (``wait_ready``) and systemd (``Type=notify``) of the master's state."""

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
# How long to wait if systemd's socket, which has room for few messages, is full.
_SEND_TIMEOUT_S = 0.2
_MAX_MESSAGE_BYTES = 16_000_000


class Notifier:
    """Notifies PM2 or systemd, if one of them started this process and asks for notifications.

    Args:
        environ: the environment of this process. The variables that PM2 and systemd set for
            notifications are removed, so that child processes do not get them.
        on_shutdown: called when PM2 sends ``shutdown`` (its option ``shutdown_with_message``).

    Attributes:
        watchdog_every_s: how often to send ``WATCHDOG=1``; None if systemd's watchdog is off.
    """

    def __init__(
        self, environ: MutableMapping[str, str], on_shutdown: Callable[[], None] = lambda: None
    ) -> None:
        found = {name: environ.pop(name, "") for name in (*_PM2_VARIABLES, *_SYSTEMD_VARIABLES)}
        self._on_shutdown = on_shutdown
        self._pm2: socket.socket | None = None
        if found["NODE_CHANNEL_FD"].isdigit():
            with contextlib.suppress(OSError):
                self._pm2 = socket.socket(fileno=int(found["NODE_CHANNEL_FD"]))
                self._pm2.set_inheritable(False)
                self._pm2.setblocking(False)
        self._systemd = found["NOTIFY_SOCKET"]
        usec, pid = found["WATCHDOG_USEC"], found["WATCHDOG_PID"]
        is_for_us = not pid or pid == str(os.getpid())
        # Half of the time after which systemd kills a process that has sent nothing.
        self.watchdog_every_s = int(usec) / 2e6 if usec.isdigit() and is_for_us else None

    async def listen(self) -> None:
        """Read PM2's messages until it closes the channel."""
        if self._pm2 is None:
            return
        with contextlib.suppress(OSError, ValueError):
            messages, writer = await asyncio.open_connection(
                sock=self._pm2.dup(), limit=_MAX_MESSAGE_BYTES
            )
            with contextlib.closing(writer):
                async for line in messages:
                    with contextlib.suppress(ValueError):
                        if json.loads(line) == "shutdown":
                            self._on_shutdown()

    def ready(self) -> None:
        """Report that all workers take jobs."""
        if self._pm2 is not None:
            with contextlib.suppress(OSError):
                self._pm2.send(b'"ready"\n')
        self.notify_systemd("READY=1")

    def reloading(self) -> None:
        """Report that a replacement has begun. ``READY=1`` reports its end."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def notify_systemd(self, text: str) -> None:
        """Send systemd a message of sd_notify(3), such as ``STOPPING=1``."""
        if not self._systemd:
            return
        address = self._systemd
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_SEND_TIMEOUT_S)
            sock.sendto(text.encode(), address)
