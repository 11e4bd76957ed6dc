"""The framing, and calls over a socket that behaves badly. No PM2 runs here: the daemon is fake."""

from __future__ import annotations

import json
import random
import socket
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from qctl.errors import UnreachableError
from qctl.manage.pm2 import rpc
from qctl.manage.pm2.rpc import (
    Call,
    Decoder,
    NotUnderstoodError,
    RpcError,
    UnknownMethodError,
    call,
    encode,
)
from tests.labs.pm2_rows import answering, read_request

HIDDEN = "hunter2-secret"
Start = Callable[[Callable[[socket.socket], None]], Path]


def test_a_frame_has_the_bytes_that_pm2_expects() -> None:
    frame = encode({"a": 1}, "id", b"\x00\x01")
    assert frame == (
        b"\x13" + struct.pack(">I", 10) + b'j:{"a": 1}' + struct.pack(">I", 4) + b"s:id"
        + struct.pack(">I", 2) + b"\x00\x01"
    )  # fmt: skip


def test_frames_survive_any_cut() -> None:
    frames = [encode({"text": "ü" * 50}, "1"), encode("a"), encode(b"", b"")]
    stream = b"".join(frames)
    rng = random.Random(5)
    for _ in range(200):
        decoder = Decoder()
        got = []
        rest = stream
        while rest:
            size = rng.randint(1, 40)
            got += decoder.feed(rest[:size])
            rest = rest[size:]
        assert [len(frame) for frame in got] == [2, 1, 2]
        assert json.loads(got[0][0][2:]) == {"text": "ü" * 50}
        assert got[1:] == [[b"s:a"], [b"", b""]]


@pytest.mark.parametrize(
    "junk", [b"HTTP/1.1 400 Bad Request\r\n", b"\x00", b"\x10", b"\x22\x00", b"\xff" * 20]
)
def test_the_decoder_refuses_what_is_not_the_protocol(junk: bytes) -> None:
    with pytest.raises(NotUnderstoodError):
        Decoder().feed(junk)


def test_the_decoder_refuses_a_huge_length_before_it_has_the_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotUnderstoodError, match="more than"):
        Decoder().feed(b"\x12" + struct.pack(">I", 0xFFFFFFFF))
    monkeypatch.setattr(rpc, "MAX_FRAME_BYTES", 10)
    with pytest.raises(NotUnderstoodError, match="more than 10 bytes"):
        Decoder().feed(encode("a" * 20))


def test_a_call_sends_the_method_and_gets_the_arguments(fake_daemon: Start) -> None:
    seen: list[object] = []

    def serve(connection: socket.socket) -> None:
        request, request_id = read_request(connection)
        seen.append(request)
        # A reply to somebody else's request comes first.
        connection.sendall(encode({"args": ["not mine"]}, "other"))
        connection.sendall(encode({"args": [1, None]}, request_id))

    home = fake_daemon(serve)
    assert call(home / "rpc.sock", "ping", {"x": "ü"}) == [1, None]
    assert seen == [{"type": "call", "method": "ping", "args": [{"x": "ü"}]}]


def test_a_reply_in_many_pieces(fake_daemon: Start) -> None:
    home = fake_daemon(answering({"args": ["x" * 100_000]}, pieces=500))
    assert call(home / "rpc.sock", "ping", {}) == ["x" * 100_000]


def test_polling_does_not_wait(fake_daemon: Start) -> None:
    home = fake_daemon(lambda _: None)
    request = Call(home / "rpc.sock", "restartProcessId", {"id": 1})
    # With no answer to come, a poll that waited would never return.
    assert request.poll() is None
    assert request.poll() is None
    request.close()


def test_an_error_reply_gives_its_message_only(fake_daemon: Start) -> None:
    home = fake_daemon(answering({"error": "process id unknown", "stack": HIDDEN}))
    with pytest.raises(RpcError) as caught:
        call(home / "rpc.sock", "restartProcessId", {"id": 9})
    assert str(caught.value) == "process id unknown"
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"msg": "no", "env": HIDDEN}, "no"),
        ({"env": HIDDEN}, "PM2 reported an error without saying which"),
        ("", "PM2 reported an error without saying which"),
        ("x" * 5000, "x" * 300),
    ],
)
def test_an_error_reply_of_another_form(fake_daemon: Start, error: object, text: str) -> None:
    home = fake_daemon(answering({"error": error}))
    with pytest.raises(RpcError) as caught:
        call(home / "rpc.sock", "m", {})
    assert str(caught.value) == text


def test_a_method_that_this_pm2_lacks(fake_daemon: Start) -> None:
    home = fake_daemon(answering({"error": 'method "m" does not exist'}))
    with pytest.raises(UnknownMethodError):
        call(home / "rpc.sock", "m", {})


@pytest.mark.parametrize(
    "reply", [None, 5, "text", [HIDDEN], {"args": HIDDEN}, {"argz": [HIDDEN]}, {"error": None}]
)
def test_a_reply_of_another_form(fake_daemon: Start, reply: object) -> None:
    home = fake_daemon(answering(reply))
    with pytest.raises(NotUnderstoodError) as caught:
        call(home / "rpc.sock", "m", {})
    assert HIDDEN not in repr(caught.value)


@pytest.mark.parametrize(
    "payload",
    [
        b'j:{"args": ["' + HIDDEN.encode(),
        b"s:" + HIDDEN.encode(),
        b"j:\xff\xfe" + HIDDEN.encode(),
        b"j:" + b"[" * 200_000,
    ],
    ids=["half", "text", "bytes", "deep"],
)
def test_a_reply_that_is_not_json_travels_on_in_no_exception(
    fake_daemon: Start, payload: bytes
) -> None:
    def serve(connection: socket.socket) -> None:
        request_id = read_request(connection)[1]
        connection.sendall(encode(payload, request_id))

    home = fake_daemon(serve)
    with pytest.raises(NotUnderstoodError) as caught:
        call(home / "rpc.sock", "m", {})
    # A JSONDecodeError as its context would hold the whole document.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert HIDDEN not in repr(caught.value)


def test_junk_instead_of_a_reply(fake_daemon: Start) -> None:
    home = fake_daemon(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"))
    with pytest.raises(NotUnderstoodError):
        call(home / "rpc.sock", "m", {})


def test_half_a_frame_and_then_silence_ends_with_the_time_allowed(fake_daemon: Start) -> None:
    home = fake_daemon(lambda connection: connection.sendall(b"\x12\x00\x00\x01\x00j:"))
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        call(home / "rpc.sock", "m", {}, timeout_s=0.2)
    assert "rpc.sock" in caught.value.why


def test_drops_of_junk_do_not_extend_the_time_allowed(fake_daemon: Start) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        while True:
            connection.sendall(encode("drop"))

    home = fake_daemon(serve)
    with pytest.raises(UnreachableError, match="does not answer"):
        call(home / "rpc.sock", "m", {}, timeout_s=0.2)


def test_half_a_frame_and_then_the_end(fake_daemon: Start) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"\x12\x00\x00")
        connection.shutdown(socket.SHUT_RDWR)

    home = fake_daemon(serve)
    with pytest.raises(UnreachableError, match="closed the connection"):
        call(home / "rpc.sock", "m", {})


def test_no_socket(short_home: Path) -> None:
    with pytest.raises(UnreachableError, match="does not run") as caught:
        call(short_home / "rpc.sock", "m", {})
    assert str(short_home / "rpc.sock") in caught.value.why
    assert "PM2_HOME" in caught.value.hint
    assert "pm2 ls" in caught.value.hint


def test_a_socket_that_a_dead_daemon_left(short_home: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(short_home / "rpc.sock"))
    listener.close()
    with pytest.raises(UnreachableError, match="does not run") as caught:
        call(short_home / "rpc.sock", "m", {})
    assert "nothing listens" in caught.value.why


def test_a_home_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        call(tmp_path / ("x" * 200) / "rpc.sock", "m", {})
    assert "too long" in caught.value.why
