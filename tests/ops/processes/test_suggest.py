"""Typed as it stands, a recommended command goes to the Redis that was looked at."""

from __future__ import annotations

import pytest

from qctl.config.settings import Origin, Settings
from qctl.ops.processes.suggest import command, commands_like

FLAG = Origin("flag")


def test_without_flags_the_environment_and_the_config_suffice() -> None:
    settings = Settings(redis_url="redis://h:1/2", prefix="mine", context="prod")
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


def test_another_redis_instead_of_the_one_of_the_flag() -> None:
    with commands_like(Settings(redis_url="redis://h:1/2", origins={"redis.url": FLAG})):
        told = command("bull", "impact", redis="redis://other:1/0")
    assert told == "qctl impact --redis redis://other:1/0"


def test_names_that_look_like_options_come_last() -> None:
    with commands_like(Settings(redis_url="redis://h:1/2", origins={"redis.url": FLAG})):
        assert command("bull", "drain", "-x", "--timeout", "9m") == (
            "qctl drain --timeout 9m --redis redis://h:1/2 -- -x"
        )
