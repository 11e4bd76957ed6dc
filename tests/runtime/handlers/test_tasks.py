"""Which function runs which job, and what is around it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from qctl import Worker
from qctl.errors import UsageError
from qctl.runtime.handlers.tasks import Call, in_thread, wrap
from qctl.runtime.handlers.threads import Threads
from qctl.runtime.job.job import Job


class NoLink:
    keys: Any = None


def a_job() -> Job:
    return Job("1", {"name": "n", "data": "[1]"}, "t", NoLink(), 0.0)  # type: ignore[arg-type]


def layer(name: str, seen: list[str]) -> Callable[[Job, Call], Any]:
    async def around(job: Job, call_next: Call) -> Any:
        seen.append(f"{name} in")
        try:
            return f"{name}({await call_next(job)})"
        finally:
            seen.append(f"{name} out")

    return around


def test_middleware_is_an_onion_whose_first_layer_is_the_outermost() -> None:
    seen: list[str] = []

    async def handler(job: Job) -> str:
        seen.append(f"handler {job.data}")
        return "value"

    call = wrap(handler, [layer("a", seen), layer("b", seen)])
    assert asyncio.run(call(a_job())) == "a(b(value))"
    assert seen == ["a in", "b in", "handler [1]", "b out", "a out"]


def test_a_layer_sees_errors_and_may_answer_for_the_handler() -> None:
    async def broken(_: Job) -> None:
        raise ValueError("inner")

    async def forgiving(job: Job, call_next: Call) -> str:
        try:
            await call_next(job)
        except ValueError as error:
            return f"forgiven {error}"
        return "unreachable"

    async def never(_: Job, __: Call) -> str:
        return "not called"

    assert asyncio.run(wrap(broken, [forgiving])(a_job())) == "forgiven inner"
    assert asyncio.run(wrap(broken, [never])(a_job())) == "not called"


def test_a_plain_function_runs_in_a_thread_with_the_callers_context() -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")

    def handler(job: Any) -> tuple[str, str, Any]:
        return trace.get(), threading.current_thread().name, job.data

    async def tracing(job: Job, call_next: Call) -> Any:
        trace.set(f"trace of {job.id}")
        return await call_next(job)

    threads = Threads("pool")
    call = wrap(in_thread(handler, threads), [tracing])
    found = asyncio.run(call(a_job()))
    threads.close()
    assert found == ("trace of 1", "pool_0", [1])


async def handle(_: Job) -> None:
    return None


def plain(_: Job) -> None:
    return None


def test_what_cannot_be_registered() -> None:
    worker = Worker("q")
    worker.task("a")(handle)
    worker.task()(handle)
    wrong: list[tuple[Callable[..., Any], Any, str]] = [
        (worker.task("a"), handle, "two tasks for 'a'"),
        (worker.task(), handle, "two tasks without a name"),
        (worker.task("b", kill_after_s=1), plain, "kill_after_s needs isolate=True"),
        (worker.task("b", isolate=True), handle, "plain def"),
    ]
    for register, handler, message in wrong:
        with pytest.raises(UsageError, match=message):
            register(handler)
    # What was refused is not registered.
    worker.task("b")(plain)


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    worker = Worker("q")
    assert worker.task("a")(handle) is handle
    assert worker.task()(plain) is plain

    async def around(job: Job, call_next: Call) -> Any:
        return await call_next(job)

    assert worker.use(around) is around


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be above 0"),
        ({"lock_ttl_s": 0}, "lock_ttl_s"),
        ({"stalled_interval_s": -1}, "stalled_interval_s"),
        ({"drain_delay_s": 0}, "drain_delay_s"),
        ({"remove_on_complete": "100"}, "remove_on_complete cannot be '100'"),
        ({"remove_on_fail": {"cuont": 5}}, "remove_on_fail cannot be"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Worker("q", **options)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_names_that_no_queue_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="queue"):
        Worker(name)
