"""Passwords show nowhere: not in output, errors, tracebacks or what a server echoes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.connection.connect import connect
from tests.labs.hostile import Qctl, Result, assert_no_secret, put
from tests.labs.servers import RedisServer, free_port, hang_up

SECRET = "hunter2-Pä/ss"  # noqa: S105 - it opens nothing
CODED = "hunter2-P%C3%A4%2Fss"
# Enough of it to tell it from other text, whatever became of its special characters.
PART = "hunter2"
URL = f"redis://:{CODED}@127.0.0.1"
MODES: tuple[tuple[str, ...], ...] = ((), ("--json",), ("--debug",))


@pytest.fixture
def qctl(tmp_path_factory: pytest.TempPathFactory) -> Qctl:
    return Qctl(tmp_path_factory.mktemp("home"), "")


def assert_private(*results: Result) -> None:
    for result in results:
        assert_no_secret(result, SECRET, CODED, PART)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """The port of a server that sends everything back inside an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        text = connection.recv(65_536).replace(b"\r\n", b" ")
                        connection.sendall(b"-ERR you said: " + text + b"\r\n")
                        hang_up(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_a_connection_with_a_password(qctl: Qctl, start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--requirepass", SECRET)
    with contextlib.closing(connect(server.url_for(password=CODED))[1]) as client:
        put(client, "q", "1")
        put(client, "q", "2", "active")
    url = server.url_for(password=CODED)
    commands = [
        (*command, *mode)
        for mode in MODES
        for command in (
            ("status",),
            ("jobs", "show", "q", "1"),
            ("drain", "q", "--dry-run"),
            ("pause", "q"),
            ("resume", "q"),
            ("status", "nope"),
        )
    ]
    results = qctl.all(commands, QCTL_REDIS_URL=url)
    assert [result.code for result in results] == [0, 0, 0, 0, 0, 3] * len(MODES)
    drained = qctl("drain", "q", "--output", "ndjson", url=url)
    assert drained.code == 0
    wrong = qctl.all([("status", *mode) for mode in MODES], QCTL_REDIS_URL=url.replace("ss@", "@"))
    assert [result.code for result in wrong] == [6] * len(MODES)
    assert_private(*results, drained, *wrong)


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
def test_nobody_listens(qctl: Qctl, scheme: str) -> None:
    url = f"{scheme}://:{CODED}@127.0.0.1:{free_port()}/m"
    url = url if scheme == "redis+sentinel" else url.removesuffix("/m")
    results = qctl.all([("status", *mode) for mode in MODES], QCTL_REDIS_URL=url)
    assert [result.code for result in results] == [6] * len(MODES)
    assert_private(*results)
    assert all(len(result.stderr) < 1000 for result in results[:-1])
    # Without --debug the cause is in words, with it there is the place in the program too.
    assert "Traceback" in results[-1].stderr
    assert not any("Traceback" in result.stderr for result in results[:-1])


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("server", ["renamed", "echo"])
def test_a_server_that_repeats_what_it_is_sent(
    qctl: Qctl, start_redis: Callable[..., RedisServer], scheme: str, server: str
) -> None:
    with contextlib.ExitStack() as stack:
        if server == "echo":
            port = stack.enter_context(echo_server())
        else:
            # An unknown command comes back with its arguments.
            port = start_redis("--rename-command", "AUTH", "XAUTH").port
        path = "/m" if scheme == "redis+sentinel" else ""
        url = f"{scheme}://:{CODED}@127.0.0.1:{port}{path}"
        results = qctl.all([("status", *mode) for mode in MODES], QCTL_REDIS_URL=url)
    assert [result.code for result in results] == [6] * len(MODES)
    assert_private(*results)


@pytest.mark.parametrize(
    "url",
    [
        f"{URL}:port",
        f"{URL}/zero",
        f"redis://:1/{PART}@h",
        f"redis://:1#{PART}@h",
        f"redis://:1?{PART}@h",
        f"redis://:{PART}/x@h",
        f"redis://:{PART}@h\u2100st",
        f"redis://:{PART}@[::1",
        f":{PART}@h",
        f"http://:{PART}@h",
        f"redis+sentinel://:{PART}@h",
    ],
)
def test_a_malformed_url(qctl: Qctl, url: str) -> None:
    results = [*qctl.all([("status", *mode) for mode in MODES], QCTL_REDIS_URL=url)]
    results.append(qctl("status", "--redis", url))
    assert [result.code for result in results] == [2] * len(results)
    assert_private(*results)


def test_a_url_in_the_wrong_place(qctl: Qctl) -> None:
    for password in (PART, f"{PART}@x", CODED, f"{PART}:{PART}"):
        url = f"redis://ada:{password}@h/0"
        commands = [
            (url,),
            ("status", "--bogus", url),
            ("--redis", url, "status"),
            (f"--redis={url}", "status"),
            ("status", f"--redys={url}"),
            ("status", "--output", url),
            ("jobs", "list", "q", "--state", url),
            ("drain", "q", "--timeout", url),
            ("status", "--context", url),
            ("status", url),
        ]
        results = qctl.all(commands, QCTL_REDIS_URL=f"redis://127.0.0.1:{free_port()}")
        assert all(result.code in {2, 3, 6} for result in results), results
        assert_private(*results)


def test_a_url_in_a_config_file(qctl: Qctl) -> None:
    config = Path(qctl.folder) / "qctl.toml"
    for text, code in (
        (f'[redis]\nurl = "{URL}:1"', 6),
        (f'[redis]\nurl = ["{URL}:1"]', 2),
        (f'redis = "{URL}:1"', 2),
        (f'[redis]\nurl = "{URL}:1"\nurl = "{URL}:2"', 2),
        (f'[redis]\nurl = "{URL}:1', 2),
    ):
        config.write_text(text)
        results = qctl.all([("status", *mode) for mode in MODES], QCTL_REDIS_URL="", REDIS_URL="")
        assert [result.code for result in results] == [code] * len(MODES), results
        assert_private(*results)
