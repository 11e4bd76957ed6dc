"""Handlers that state the type of their data. Annotations are texts here: see the first import."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, NotRequired, TypedDict
from uuid import UUID

import pydantic
import pytest

from qctl import Job, NewJob, SyncJob, Worker
from qctl.errors import UsageError
from qctl.runtime.handlers.payloads import job_handler
from qctl.runtime.job.outcomes import InvalidDataError
from qctl.testing import FakeQueues, run_until_idle
from qctl.wire.encoding import encode_json

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]

UserId = NewType("UserId", int)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    city: str
    zip_code: str | None = None


@dataclass
class Order:
    id: UserId
    state: Literal["new", "paid"]
    placed_at: datetime
    to: Address
    others: list[Address] = field(default_factory=list)
    prices: dict[str, Decimal] = field(default_factory=dict)
    pair: tuple[int, float] = (0, 0.0)
    colour: Colour | None = None
    due: date | None = None
    key: UUID | None = None
    note: Annotated[str, "shown"] = ""
    before: Order | None = None

    def __post_init__(self) -> None:
        if self.id < 0:
            raise ValueError("an id is not negative")


class Welcome(TypedDict):
    to: str
    copies: NotRequired[int]


class Model(pydantic.BaseModel):
    to: str
    at: datetime
    lines: list[int] = []


@pydantic.dataclasses.dataclass
class Positive:
    n: Annotated[int, pydantic.Field(gt=0)]


ORDER = {
    "id": 7,
    "state": "new",
    "placed_at": "2026-01-31T12:00:00Z",
    "to": {"city": "Ulm", "added_later": True},
    "others": [{"city": "Bern", "zip_code": "3000"}],
    "prices": {"a": "1.50"},
    "pair": [1, 2],
    "colour": "blue",
    "due": "2026-02-01",
    "key": "12345678-1234-5678-1234-567812345678",
    "before": {"id": 6, "state": "paid", "placed_at": "2026-01-30", "to": {"city": "Bonn"}},
}
BEFORE = Order(UserId(6), "paid", datetime(2026, 1, 30), Address("Bonn"))
AS_OBJECT = Order(
    id=UserId(7),
    state="new",
    placed_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    to=Address("Ulm"),
    others=[Address("Bern", "3000")],
    prices={"a": Decimal("1.50")},
    pair=(1, 2.0),
    colour=Colour.BLUE,
    due=date(2026, 2, 1),
    key=UUID("12345678-1234-5678-1234-567812345678"),
    before=BEFORE,
)


def a_job(data: Any) -> Job:
    link: Any = None
    return Job("1", {"name": "n", "data": json.dumps(data)}, "t", link, 0.0)


def call(handler: Callable[..., Any], data: Any) -> Any:
    """What the handler returns for a job with this data."""
    return job_handler(handler)(a_job(data))


def order_of(job: Job[Order]) -> Order:
    return job.data


def test_every_kind_of_field_becomes_what_the_annotation_says() -> None:
    assert call(order_of, ORDER) == AS_OBJECT
    # Fields unknown to the class are left out, and what the class has comes back as it was sent.
    assert call(order_of, json.loads(encode_json(AS_OBJECT, "it"))) == AS_OBJECT
    model = Model(to="ada", at=AS_OBJECT.placed_at)
    assert json.loads(encode_json([model], "it")) == [
        {"to": "ada", "at": "2026-01-31T12:00:00Z", "lines": []}
    ]


def test_the_forms_of_a_handler() -> None:
    def second(job: Job, data: Welcome) -> Any:
        return job.id, data

    def alone(data: Welcome) -> Any:
        return data

    def both(job: SyncJob[Welcome], data: Welcome) -> Any:
        return job.data is data

    def without_a_type(job: Job, data: Any) -> Any:
        return data

    def of_python(job: Job[dict[str, int]]) -> Any:
        return job.data

    def model(job: Job[Model]) -> Any:
        return job.data.at.year

    welcome = {"to": "ada"}
    assert call(second, welcome) == ("1", welcome)
    assert call(alone, {"to": "ada", "copies": 2}) == {"to": "ada", "copies": 2}
    assert call(both, welcome) is True
    assert call(without_a_type, [1]) == [1]
    assert call(of_python, {"a": 1}) == {"a": 1}
    assert call(model, {"to": "ada", "at": "2026-01-31T12:00:00Z"}) == 2026


def test_a_class_may_be_local_to_the_function_that_registers_the_handler() -> None:
    @dataclass
    class Local:
        n: int

    worker = Worker("q")

    @worker.task("a")
    async def handler(job: Job[Local]) -> int:
        return job.data.n + 1

    assert run_until_idle(worker, [("a", {"n": 1})])[0].returnvalue == 2


def test_a_handler_that_states_nothing_is_used_as_it_is() -> None:
    def plain(job: Job) -> None: ...
    def old(job, retries=3): ...  # type: ignore[no-untyped-def]
    def any_data(job: Job[Any]) -> None: ...
    def mapping(job: Mapping[str, Any]) -> None: ...
    def anything(*args: Any, **more: Any) -> None: ...

    for handler in (plain, old, any_data, mapping, anything, print):
        assert job_handler(handler) is handler


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"id": "7"}, ["data.id must be a whole number, not '7'"]),
        ({"id": True}, ["data.id must be a whole number, not True"]),
        ({"id": -1}, ["data: an id is not negative"]),
        ({"state": "lost"}, ["data.state must be 'new' or 'paid', not 'lost'"]),
        ({"placed_at": "soon"}, ["data.placed_at must be a date and time such as"]),
        ({"to": None}, ["data.to must be an object, not null"]),
        ({"to": {}}, ["data.to.city is missing"]),
        ({"others": [{"city": "a"}, {"city": 1}]}, ["data.others[1].city must be a string, not 1"]),
        ({"prices": {"a": "much"}}, ["data.prices.a must be a decimal number as text"]),
        ({"pair": [1]}, ["data.pair must be a list of 2, not a list"]),
        ({"colour": "green"}, ["data.colour must be 'red' or 'blue', not 'green'"]),
        ({"key": 5}, ["data.key must be a UUID, not 5"]),
        ({"before": {"id": 1}}, ["data.before.state is missing", "data.before.to is missing"]),
        ({"id": None, "note": 5}, ["data.id must be", "data.note must be a string, not 5"]),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], reasons: list[str]) -> None:
    with pytest.raises(InvalidDataError) as caught:
        call(order_of, {**ORDER, **change})
    text = str(caught.value)
    assert text.startswith("invalid data: data")
    assert not [reason for reason in reasons if reason not in text], text


def test_what_does_not_fit_a_union_a_model_or_an_object() -> None:
    def union(job: Job[int | Address]) -> Any:
        return job.data

    def model(job: Job[Model]) -> Any:
        return job.data

    def positive(job: Job[Positive]) -> Any:
        return job.data.n

    assert call(positive, {"n": 1}) == 1
    assert (call(union, 5), call(union, {"city": "Ulm"})) == (5, Address("Ulm"))
    for handler, data, reason in (
        (union, "x", "data must be a whole number, not 'x' or data must be an object, not 'x'"),
        (model, {"to": 1, "at": 5, "lines": ["x"]}, "data.to: Input should be a valid string"),
        (model, {"to": "", "at": 5, "lines": [1, "x"]}, "data.lines[1]: Input should be"),
        (positive, {"n": -1}, "data.n: Input should be greater than 0"),
        (order_of, [], "data must be an object, not a list"),
        (order_of, "x" * 99, "xxx..."),
    ):
        with pytest.raises(InvalidDataError) as caught:
            call(handler, data)
        assert reason in str(caught.value)


def test_handlers_that_cannot_be_registered() -> None:
    def no_job() -> None: ...
    def too_many(job: Job, data: Welcome, more: Any) -> None: ...
    def needs_keyword(job: Job, *, data: Welcome) -> None: ...
    def wrong_order(data: Welcome, job: Job) -> None: ...
    def two_types(job: Job[Welcome], data: Order) -> None: ...
    def no_json(job: Job[complex]) -> None: ...
    def nested(job: Job[dict[str, list[bytes]]]) -> None: ...
    def wrong_keys(job: Job[dict[int, str]]) -> None: ...
    def unknown(job: Job[Unknown]) -> None: ...

    for handler, message in (
        (no_job, r"no_job cannot be a task: its parameters are \(\)"),
        (too_many, "too_many cannot be a task"),
        (needs_keyword, "needs_keyword cannot be a task"),
        (wrong_order, "data is the job; the data comes second"),
        (two_types, "differ"),
        (no_json, "the task no_json cannot have data of the type complex"),
        (nested, "bytes"),
        (wrong_keys, "the keys of a JSON object are strings"),
        (unknown, "name 'Unknown' is not defined"),
    ):
        with pytest.raises(UsageError, match=message):
            Worker("q").task("a")(handler)


worker = Worker("q", concurrency=3)


@worker.use
async def twice(job: Job, call_next: Callable[[Job], Awaitable[Any]]) -> Any:
    """A middleware that tries again."""
    try:
        return await call_next(job)
    except ConnectionError:
        return await call_next(job)


@worker.task("async")
async def in_loop(job: Job[Address]) -> Address:
    if job.data.zip_code is None:
        await job.update_data(Address(job.data.city, "89073"))
        raise ConnectionError
    return job.data


@worker.task("thread")
def in_thread(job: SyncJob, data: Address) -> str:
    return f"{job.name} {data.city}"


@worker.task("process", isolate=True)
def in_process(job: SyncJob[Address]) -> str:
    return f"{job.name} {job.data.city}"


def test_data_that_does_not_fit_fails_the_job_without_a_retry() -> None:
    good, bad = Address("Ulm"), {"city": 5}
    names = ("async", "thread", "process")
    with FakeQueues() as fake:
        queue = fake.queue("q")
        ids = queue.add_bulk(
            [NewJob(name, data, attempts=3) for data in (good, bad) for name in names]
        )
        fake.run(worker, timeout_s=60)
        ended = [fake.outcome(queue, each) for each in ids]
    assert [each.returnvalue for each in ended[:3]] == [
        {"city": "Ulm", "zip_code": "89073"}, "thread Ulm", "process Ulm",
    ]  # fmt: skip
    for outcome in ended[3:]:
        assert (outcome.state, outcome.attempts) == ("failed", 1)
        assert outcome.failed_reason == "invalid data: data.city must be a string, not 5"
        assert json.loads(outcome.fields["stacktrace"]) == [
            "InvalidDataError: invalid data: data.city must be a string, not 5"
        ]


def test_a_model_of_pydantic_1_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        """A stand-in for ``pydantic.BaseModel`` of version 1, which has no ``model_validate``."""

    def handler(job: Job[Old]) -> None: ...

    monkeypatch.setattr(pydantic, "BaseModel", Old)
    with pytest.raises(UsageError, match="qctl needs pydantic 2"):
        Worker("q").task("a")(handler)


def test_middleware_sees_the_data_as_it_was_sent_until_the_handler_gets_it() -> None:
    seen: list[Any] = []

    def handler(job: Job[Address]) -> None:
        seen.append(job.data)

    job = a_job({"city": "Ulm"})
    seen.append(job.data)
    job_handler(handler)(job)
    assert seen == [{"city": "Ulm"}, Address("Ulm")]
    assert asyncio.iscoroutinefunction(in_loop)
