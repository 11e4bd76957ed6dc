"""The middleware of docs/logging.md, with Sentry's SDK and a transport that keeps the events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qctl import Job, NewJob, RetryLater
from qctl.testing import FakeQueues

sentry_sdk = pytest.importorskip("sentry_sdk")
PAGE = Path(__file__).parents[2] / "docs/logging.md"


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []

    class Keep(sentry_sdk.transport.Transport):  # type: ignore[misc,name-defined]
        def capture_envelope(self, envelope: Any) -> None:
            if event := envelope.get_event():
                found.append(event)

    sentry_sdk.init(dsn="https://key@example.org/1", transport=Keep)
    yield found
    sentry_sdk.init()


def test_a_failed_run_is_one_event_with_its_job(events: list[dict[str, Any]]) -> None:
    (code,) = re.findall(r"```python\n([^`]*import sentry_sdk.*?)```", PAGE.read_text(), re.DOTALL)
    app: dict[str, Any] = {}
    exec(code, app)  # noqa: S102 - the page's own code
    worker = app["worker"]

    @worker.task()
    async def work(job: Job) -> None:
        if job.name == "later" and job.attempts_started == 1:
            raise RetryLater
        if job.name == "broken":
            raise ValueError("no answer")

    @worker.task("slow", timeout_s=0.01)
    async def slow(job: Job) -> None:
        import asyncio  # noqa: PLC0415

        await asyncio.sleep(60)

    with FakeQueues() as fake:
        queue = fake.queue("emails")
        ids = queue.add_bulk([NewJob("fine"), NewJob("broken", attempts=2), NewJob("later")])
        fake.run(worker)
        queue.add("slow")
        fake.run(worker)
    *runs, late = events
    assert [event["exception"]["values"][-1]["value"] for event in runs] == ["no answer"] * 2
    assert [event["tags"]["queue"] for event in runs] == ["emails"] * 2
    assert [event["contexts"]["job"] for event in runs] == [
        {"id": ids[1], "name": "broken", "attempt": attempt} for attempt in (1, 2)
    ]
    assert (late["logger"], late["exception"]["values"][-1]["type"]) == (
        "qctl.worker", "JobTimeoutError",
    )  # fmt: skip
