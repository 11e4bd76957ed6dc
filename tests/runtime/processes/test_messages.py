"""The messages between a master and a child of another version of qctl."""

from __future__ import annotations

from dataclasses import asdict

from qctl.runtime.processes.messages import (
    ChildState,
    MasterOptions,
    Orders,
    WorkerIdentity,
    encode,
    from_row,
)
from qctl.runtime.processes.process import ChildProcess


def test_a_master_ignores_fields_of_a_newer_child() -> None:
    child = ChildProcess(0)
    identity = WorkerIdentity("o", "bull", "q", "redis://r", 1)
    held = [asdict(identity) | {"newer": 1}]
    child._on_message(encode("workers", held=held, newer=1))
    child._on_message(encode("state", busy=2, done=3, newer=1))
    child._on_message(encode("newer", newer=1))
    assert child.workers == (identity,)
    assert child.state == ChildState(busy=2, done=3)


def test_a_child_ignores_orders_of_a_newer_master() -> None:
    orders = Orders(**asdict(MasterOptions(apps=["a:b"])), slot=0, channel=3, stderr=4)
    assert from_row(Orders, asdict(orders) | {"newer": 1}) == orders
