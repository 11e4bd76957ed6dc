"""The control socket of a master."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from qctl.runtime.processes import control
from qctl.runtime.processes.master import Master


def test_an_open_request_leaves_no_traceback_in_the_log_of_a_master_that_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start polls the socket while the master fails, and then quotes the log's last error."""
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)

    async def end_during_a_request(path: Path) -> None:
        server = await control.serve(cast("Master", None), path)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(path))
        clients.append(client)
        # The handler waits for the request.
        while not any(
            "answer" in repr(task) and "wait_for=" in repr(task) for task in asyncio.all_tasks()
        ):
            await asyncio.sleep(0)
        server.close()

    clients: list[socket.socket] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, caplog.at_level(logging.DEBUG):
        asyncio.run(end_during_a_request(Path(folder) / "s"))
        # The master has closed the connection.
        assert clients[0].recv(1) == b""
        clients[0].close()
    assert [row for row in caplog.records if row.levelno > logging.DEBUG] == []
    assert unraisable == []
