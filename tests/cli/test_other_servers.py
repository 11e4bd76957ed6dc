"""Commands on servers that are not a plain Redis, and without the packages of an extra."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from qctl.connection.address import Client
from tests.labs.build import put
from tests.labs.cli import run
from tests.labs.proxy import rewriting_proxy
from tests.labs.servers import RedisServer

# What Valkey's INFO has besides Redis' version, in place of lines of the same length.
VALKEY = {
    rb"redis_build_id:": b"server_name:valkey",
    rb"executable:": b"valkey_version:8.1.1",
}


def as_valkey(reply: bytes) -> bytes:
    for start, line in VALKEY.items():
        reply = re.sub(
            rb"(?m)^" + start + rb"[^\r]{10,}",
            lambda found, line=line: (line + b"\r\nx:").ljust(len(found[0]), b"-"),
            reply,
        )
    return reply


def test_valkey_is_shown_by_its_own_name(redis_server: RedisServer, client: Client) -> None:
    put(client, "1")
    with rewriting_proxy(redis_server.port, replies=as_valkey) as url:
        ran = run("status", QCTL_REDIS_URL=url)
    assert ran.code == 0
    assert "Valkey 8.1.1" in ran.out


@pytest.mark.parametrize(
    ("extra", "module"), [("top", "textual"), ("metrics", "prometheus_client")]
)
def test_a_missing_extra_names_a_command_that_works_here(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, extra: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    words = {"top": ("top",), "metrics": ("metrics",)}[extra]
    ran = run(*words, "--no-color", terminal=True, QCTL_REDIS_URL=redis_url)
    assert ran.code != 0
    hint = ran.err.splitlines()[-1].removeprefix("try: ")
    # The environment that qctl runs in, not whichever pip comes first in PATH.
    assert Path(shlex.split(hint)[0]) == Path(sys.executable)
