"""Text that UTF-8 cannot hold is stored as BullMQ's clients store it, and is always UTF-8."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qctl import Queue
from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.wire.encoding import valid_text
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Dedup
from qctl.wire.replies import to_dict
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.node import NodeBull, wait_ended

py_worker = py.py_worker

# A half of a character, the two halves of one, and a byte as Python has it that is no text.
ODD = "half \ud83d, whole \ud83d\ude00, byte \udcff, ü"
TEXT = "half \ufffd, whole \U0001f600, byte \ufffd, ü"


def test_as_text() -> None:
    assert valid_text(ODD) == TEXT
    assert valid_text("plain") == "plain"


def test_names_data_reasons_and_logs(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, redis_url: str
) -> None:
    data = {"steps": [["log", ODD], ["progress", ODD]], "returns": ODD}
    failing = {"fail_times": 9, "message": ODD}
    retried = {"attempts": 2}
    with Queue("q", redis_url=redis_url) as queue:
        queue.add(ODD, data)
        queue.add(ODD, failing)
        queue.add("retried", failing, **retried)
        queue.upsert_scheduler("s", every=3600, name=ODD, data=ODD, start=2**42)
    bullmq.add("n", data, job=ODD)
    bullmq.add("n", failing, job=ODD)
    bullmq.add("n", failing, job="retried", **retried)
    bullmq.start_worker("n")
    py_worker()
    for name in ("q", "n"):
        wait_ended(client, 3, QueueKeys("bull", name))
    for job_id, name in (("1", TEXT), ("2", TEXT), ("3", "retried")):
        ours, theirs = (texts(client, QueueKeys("bull", queue), job_id) for queue in ("q", "n"))
        # BullMQ puts half characters of a name into Redis as bytes that are not UTF-8.
        theirs["name"] = name
        assert ours == theirs
    assert texts(client, Q, "1")["name"] == TEXT
    assert texts(client, Q, "3")["failedReason"] == TEXT
    assert client.call("HGET", Q("repeat:s"), "name") == TEXT
    for key in client.call("KEYS", "bull:q:*"):
        match client.call("TYPE", key):
            case "hash":
                value: Any = client.call("HGETALL", key)
            case "stream":
                value = [word for _, row in client.call("XRANGE", key, "-", "+") for word in row]
            case "list":
                value = client.call("LRANGE", key, 0, -1)
            case _:
                continue
        for text in value:
            # Bytes that are not UTF-8 would be lone surrogates here.
            assert text.encode(), key


def texts(client: Client, keys: QueueKeys, job_id: str) -> dict[str, Any]:
    fields = to_dict(client.call("HGETALL", keys(job_id)))
    found: dict[str, Any] = {
        name: fields.get(name) for name in ("name", "data", "returnvalue", "failedReason")
    }
    found["progress"] = fields.get("progress")
    for name in ("data", "returnvalue", "progress"):
        # The two halves of a character, escaped or not, are one to a reader of JSON.
        found[name] = json.loads(found[name] or "null")
    found["logs"] = client.call("LRANGE", keys.logs(job_id), 0, -1)
    return found


def test_ids_must_be_text(client: Client, redis_url: str) -> None:
    with Queue("q", redis_url=redis_url) as queue:
        for add in (
            lambda: queue.add("x", job_id="\udcff"),
            lambda: queue.add("x", dedup=Dedup("\udcff")),
            lambda: queue.upsert_scheduler("\udcff", every=60),
            lambda: queue.upsert_scheduler("", every=60),
        ):
            with pytest.raises(UsageError, match="cannot have the id"):
                add()
    assert client.call("KEYS", "bull:q:*") == []
