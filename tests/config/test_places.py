"""Whether two URLs lead to one database, however their hosts are spelled."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from qctl.config.places import Places

# What the resolver of these tests knows.
NAMES = {
    "redis": ["10.0.0.5", "fd00::5"],
    "cache": ["10.0.0.5"],
    "other": ["10.0.0.6"],
    "here.example": ["127.0.1.1"],
}


def look_up(host: str) -> list[str]:
    try:
        return NAMES[host]
    except KeyError:
        raise OSError(host) from None


def same(url: str, other: str) -> bool:
    places = Places(look_up)
    found = places.same(url, other)
    assert Places(look_up).same(other, url) == found
    return found


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://127.0.0.1", "redis://localhost:6379/0"),
        ("redis://127.0.0.1", "rediss://user:pw@LocalHost.:6379"),
        ("redis://127.0.0.1", "redis://127.1"),
        ("redis://127.0.0.1", "redis://2130706433"),
        ("redis://127.0.0.1", "redis://[::1]"),
        ("redis://127.0.0.1", "redis://[::ffff:127.0.0.1]"),
        ("redis://localhost", "redis://here.example"),
        ("redis://10.0.0.5/2", "redis://redis/2"),
        ("redis://10.0.0.5/2", "redis://[::ffff:10.0.0.5]/2"),
        ("redis://[fd00::5]", "redis://[fd00:0:0::5]"),
        ("redis://redis", "redis://cache"),
        ("redis://REDIS.", "redis://redis"),
        ("redis://unknown.example", "redis://UNKNOWN.example."),
        ("redis+sentinel://10.0.0.6,redis/main/1", "redis+sentinel://10.0.0.5:26379/main/1"),
        ("redis+cluster://other:7000,redis:7001", "redis+cluster://10.0.0.5:7001"),
        # Whoever writes to a node writes to the cluster.
        ("redis+cluster://other:7000,redis:7001", "redis://10.0.0.5:7001"),
        ("unix:///tmp/../tmp/r.sock?db=1", "unix:///tmp/r.sock?db=1"),
        ("embedded:/tmp/x", "embedded:/tmp/y/../x"),
    ],
)
def test_same(url: str, other: str) -> None:
    assert same(url, other)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://127.0.0.1/0", "redis://localhost/1"),
        ("redis://127.0.0.1:6379", "redis://localhost:6380"),
        ("redis://redis", "redis://other"),
        ("redis://redis", "redis://localhost"),
        ("redis://unknown.example", "redis://unheard.example"),
        ("redis://unknown.example", "redis://10.0.0.5"),
        ("redis+sentinel://redis/main", "redis+sentinel://redis/second"),
        ("redis+sentinel://redis/main", "redis+sentinel://other/main"),
        ("redis+sentinel://redis:6379/main", "redis://redis:6379"),
        ("redis+cluster://redis:7000", "redis+cluster://redis:7001"),
        ("unix:///tmp/r.sock", "unix:///tmp/r.sock?db=1"),
        ("unix:///tmp/r.sock", "redis://localhost"),
        ("embedded:/tmp/x", "embedded:/tmp/y"),
    ],
)
def test_not_the_same(url: str, other: str) -> None:
    assert not same(url, other)


def test_a_socket_is_the_same_by_another_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert same(f"unix://{tmp_path}/link/r.sock", f"unix://{tmp_path}/real/r.sock")


def test_a_resolver_that_does_not_answer_costs_its_time_once() -> None:
    asked: list[str] = []
    release = threading.Event()

    def hang(host: str) -> list[str]:
        asked.append(host)
        release.wait()
        return []

    places = Places(hang, timeout_s=0.05)
    for number in range(20):
        assert not places.same("redis://10.0.0.5", f"redis://slow{number}.example")
    assert places.same("redis://slow1.example", "redis://SLOW1.example")
    assert len(asked) == 1
    release.set()
