"""Calls to a supervisord that behaves badly; it is fake."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from xmlrpc import client as xmlrpc

import pytest

from qctl.errors import ManagerUnreachableError
from qctl.manage.supervisord import rpc
from qctl.manage.supervisord.address import Address

HIDDEN = "hunter2-secret"
OK = b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n"
Behave = Callable[[socket.socket], None]
Start = Callable[[Behave], Address]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a fake supervisord, which does as told with each connection."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:

        def serve(behave: Behave) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    try:
                        behave(connection)
                    except OSError:
                        continue

        def begin(behave: Behave) -> Address:
            listener.bind(str(path))
            listener.listen()
            threading.Thread(target=serve, args=(behave,), daemon=True).start()
            return Address(path, user="me", password=HIDDEN)

        yield begin
        listener.shutdown(socket.SHUT_RDWR)


def answer(value: object) -> bytes:
    return OK + xmlrpc.dumps((value,), methodresponse=True).encode()


def test_a_result_and_a_fault(start: Start) -> None:
    address = start(lambda c: c.sendall(answer([{"pid": 5}])))
    assert rpc.call(address, "m") == [{"pid": 5}]
    assert rpc.call_all(address, "m") == [{"pid": 5}]


def test_a_fault(start: Start) -> None:
    fault = xmlrpc.Fault(10, f"BAD_NAME: x\n{'y' * 1000}")
    address = start(lambda c: c.sendall(OK + xmlrpc.dumps(fault).encode()))
    with pytest.raises(rpc.FaultError, match="BAD_NAME: x") as caught:
        rpc.call(address, "m")
    assert caught.value.code == rpc.BAD_NAME
    assert len(str(caught.value)) <= 300


def test_a_fault_in_one_of_several(start: Start) -> None:
    address = start(
        lambda c: c.sendall(answer([1, {"faultCode": 6, "faultString": "SHUTDOWN_STATE"}]))
    )
    with pytest.raises(rpc.FaultError, match="SHUTDOWN_STATE"):
        rpc.call_all(address, "a", "b")


ENTITIES = b'<!DOCTYPE x [<!ENTITY a "hunter2-secret"><!ENTITY b "&a;&a;&a;&a;">]>'
BODY = b"<methodResponse><params><param><value>&b;</value></param></params></methodResponse>"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"hunter2-secret",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.0 500 hunter2-secret\r\n\r\n",
        OK + b"<hunter2-secret",
        OK + b"<?xml version='1.0'?>" + ENTITIES + BODY,
        OK + BODY,
        OK + b"<methodResponse><params/></methodResponse>",
        OK + b"<methodResponse><params><param><value><int>hunter2-secret</int></value>",
        answer(1)[:-40],
        OK + xmlrpc.dumps((1, 2)).encode(),
        OK + b"<value>" * 100_000,
    ],
)
def test_what_is_no_answer_is_an_error_that_quotes_nothing(start: Start, sent: bytes) -> None:
    address = start(lambda c: c.sendall(sent))
    with pytest.raises(ManagerUnreachableError) as caught:
        rpc.call(address, "m")
    error = caught.value
    assert HIDDEN not in "".join(traceback.format_exception(error)) + error.why


def test_a_wrong_password_is_named(start: Start) -> None:
    address = start(lambda c: c.sendall(b"HTTP/1.0 401 Unauthorized\r\n\r\n"))
    with pytest.raises(ManagerUnreachableError, match="another user or password"):
        rpc.call(address, "m")


def test_an_endless_answer_is_cut(start: Start) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(OK)
        while True:
            connection.sendall(b"<value>" * 10_000)

    address = start(endless)
    with pytest.raises(ManagerUnreachableError) as caught:
        rpc.call(address, "m")
    assert str(rpc.MAX_ANSWER_BYTES) in caught.value.why


@pytest.mark.parametrize("pause_s", [0.05, 30.0])
def test_an_answer_that_does_not_end_in_time_is_given_up(start: Start, pause_s: float) -> None:
    over = threading.Event()

    def slow(connection: socket.socket) -> None:
        while not over.wait(pause_s):
            connection.sendall(b"x")

    address = start(slow)
    began = time.monotonic()
    with pytest.raises(ManagerUnreachableError, match=r"within 0\.3 s"):
        rpc.call(address, "m", timeout_s=0.3)
    assert time.monotonic() - began < 5
    over.set()


def test_where_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(ManagerUnreachableError, match="does not run here"):
        rpc.call(Address(tmp_path / "s.sock"), "m")
