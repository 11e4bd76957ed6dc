"""What the sender of heartbeats logs when it cannot write them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from qctl.errors import UnreachableError
from qctl.runtime.api.worker import Worker
from qctl.runtime.processes import heartbeat
from qctl.runtime.processes.heartbeat import HeartbeatSender


def test_a_redis_that_stays_away_is_logged_once_although_another_one_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = {"redis://a"}

    def connect(url: str) -> tuple[None, str]:
        if url in away:
            raise UnreachableError(f"{url} cannot be reached")
        return None, url

    monkeypatch.setattr(heartbeat, "connect", connect)
    monkeypatch.setattr(HeartbeatSender, "_row", lambda *_: None)
    sent: list[Any] = []
    workers = [(Worker("q"), url) for url in ("redis://a", "redis://b")]
    sender = HeartbeatSender(workers, "")

    def send() -> None:
        sender._send(lambda client, _: sent.append(client))

    with caplog.at_level(logging.WARNING, "qctl"):
        send()
        send()
        assert len(caplog.records) == 1
        assert sent == ["redis://b"] * 2
        away.clear()
        send()
        away.add("redis://a")
        sender._clients.clear()
        send()
        assert len(caplog.records) == 2
