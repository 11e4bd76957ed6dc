"""Typed as it stands, a recommended command goes to the Redis that was looked at."""

from __future__ import annotations

import pytest

from qctl.config.settings import Origin, Settings
from qctl.connection import sentinel
from qctl.connection.address import parse_url
from qctl.errors import UnreachableError
from qctl.ops.processes.suggest import command, commands_like, redis_cli

FLAG = Origin("flag")


def test_without_flags_the_environment_and_the_config_suffice() -> None:
    settings = Settings(redis_url="redis://h:1/2", context="prod").under("mine")
    with commands_like(settings):
        assert command("mine", "status", "q") == "qctl status q"
        # Another's queue.
        assert command("bull", "status", "q") == "qctl status q --prefix bull"


@pytest.mark.parametrize(
    ("origins", "options"),
    [
        ({"redis.url": FLAG}, "--redis redis://u@h:1/2"),
        ({"context": FLAG}, "--context prod"),
        ({"context": FLAG, "redis.prefix": FLAG}, "--prefix bull --context prod"),
        ({"redis.url": Origin("environment")}, ""),
    ],
)
def test_flags_are_repeated_without_a_password(origins: dict[str, Origin], options: str) -> None:
    settings = Settings(redis_url="redis://u:secret@h:1/2", context="prod", origins=origins)
    with commands_like(settings):
        assert command("bull", "jobs show", "q", "1") == f"qctl jobs show q 1 {options}".rstrip()
    assert command("bull", "jobs show", "q", "1") == "qctl jobs show q 1"


def test_an_embedded_server_is_named_by_its_folder() -> None:
    settings = Settings(redis_url="embedded:my data", origins={"redis.url": FLAG})
    with commands_like(settings):
        assert command("bull", "resume", "q") == "qctl resume q --redis 'embedded:my data'"


def test_another_redis_instead_of_the_one_of_the_flag() -> None:
    with commands_like(Settings(redis_url="redis://h:1/2", origins={"redis.url": FLAG})):
        told = command("bull", "impact", redis="redis://other:1/0")
    assert told == "qctl impact --redis redis://other:1/0"


def test_names_that_look_like_options_come_last() -> None:
    with commands_like(Settings(redis_url="redis://h:1/2", origins={"redis.url": FLAG})):
        assert command("bull", "drain", "-x", "--timeout", "9m") == (
            "qctl drain --timeout 9m --redis redis://h:1/2 -- -x"
        )


@pytest.mark.parametrize(
    ("url", "node", "words", "line"),
    [
        ("redis://h:7000/2", None, ("type", "k"), "redis-cli -h h -p 7000 -n 2 type k"),
        ("unix:///run/redis.sock", None, ("ping",), "redis-cli -s /run/redis.sock ping"),
        ("redis+sentinel://s:26379/m/1", None, ("ping",), "redis-cli -h 10.0.0.7 -n 1 ping"),
        ("redis+cluster://h:7000", None, ("type", "k"), "redis-cli -c -h h -p 7000 type k"),
        ("redis+cluster://h:7000", ("n", 7001), ("info",), "redis-cli -h n -p 7001 info"),
        (
            "redis+cluster://h:7000",
            None,
            ("--cluster", "check", "h:7000"),
            "redis-cli --cluster check h:7000",
        ),
    ],
)
def test_redis_cli_connects_to_the_same_redis(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    node: tuple[str, int] | None,
    words: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.setattr(sentinel, "find_master", lambda _: ("10.0.0.7", 6379))
    assert redis_cli(parse_url(url), node, *words) == line


def test_redis_cli_when_no_sentinel_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise UnreachableError("no sentinel answers")

    monkeypatch.setattr(sentinel, "find_master", fail)
    address = parse_url("redis+sentinel://h:26379/mymaster")
    assert redis_cli(address, None, "INFO") == "redis-cli -h MASTER INFO"
