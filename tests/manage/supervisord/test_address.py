"""Where supervisord listens: URLs, and the usual places."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from qctl.errors import UsageError
from qctl.manage.supervisord import address
from qctl.manage.supervisord.address import Address, find_socket, parse_url


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("unix:///run/s.sock", Address(Path("/run/s.sock")), "unix:///run/s.sock"),
        (
            "unix://me:p%40ss@/run/s.sock",
            Address(Path("/run/s.sock"), user="me", password="p@ss"),  # noqa: S106 - a test value
            "unix://me@/run/s.sock",
        ),
        ("http://localhost", Address(None, "localhost", 9001), "http://localhost:9001"),
        (
            "http://me:x@127.0.0.1:8/",
            Address(None, "127.0.0.1", 8, "me", "x"),
            "http://me@127.0.0.1:8",
        ),
        ("http://[::1]:8", Address(None, "::1", 8), "http://[::1]:8"),
    ],
)
def test_a_url_is_parsed_and_shown_without_its_password(
    url: str, expected: Address, shown: str
) -> None:
    assert parse_url(url) == expected
    assert str(parse_url(url)) == shown
    assert "p@ss" not in repr(parse_url(url))


@pytest.mark.parametrize(
    "url",
    [
        "unix://run/s.sock",
        "unix://",
        "unix:///a%00b",
        "https://127.0.0.1:9001",
        "/run/s.sock",
        "http://10.0.0.7:9001",
        "http://127.evil.example",
        "http://localhost.evil.example",
        "http://me:hunter2@127.0.0.1:99999",
        "http://me:hunter2/x@127.0.0.1",
        "http://me:hunter2#x@127.0.0.1",
        "http://me:hunter2@[::1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url)
    error = caught.value
    assert "hunter2" not in f"{error} {error.why} {error.hint} {error.__cause__}"
    assert error.__context__ is None or error.__suppress_context__


def test_the_socket_is_found_in_its_places_and_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, config = tmp_path / "usual.sock", tmp_path / "supervisord.conf"
    monkeypatch.setattr(address, "_SOCKETS", (usual,))
    monkeypatch.setattr(address, "_CONFIGS", (tmp_path / "none", config))
    assert find_socket() is None
    config.write_bytes(b"\xff")
    assert find_socket() is None
    config.write_text("[unix_http_server]\nfile=%(here)s/own.sock ; (the path)\n")
    assert find_socket() is None
    with socket.socket(socket.AF_UNIX) as own, socket.socket(socket.AF_UNIX) as other:
        own.bind(str(tmp_path / "own.sock"))
        assert find_socket() == tmp_path / "own.sock"
        usual.write_text("no socket")
        assert find_socket() == tmp_path / "own.sock"
        usual.unlink()
        other.bind(str(usual))
        assert find_socket() == usual
        # Every user could have put it there.
        tmp_path.chmod(0o777)
        if os.geteuid() == 0:
            os.chown(usual, 4711, -1)
            os.chown(tmp_path / "own.sock", 4711, -1)
        else:
            monkeypatch.setattr("os.geteuid", lambda: 4711)
        assert find_socket() is None
