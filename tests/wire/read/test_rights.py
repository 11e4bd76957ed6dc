"""Which rights a drain needs, from its scripts, and whether a user has them."""

from __future__ import annotations

import re

import pytest

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.read import rights
from qctl.wire.read.rights import DRAIN, PAUSE, MissingRights, read_missing_rights, script_commands
from tests.labs.build import Q, put
from tests.labs.servers import limited_user

SCRIPTS = (*DRAIN, *rights._OWN)
_ANY_CALL = re.compile(r"redis\.p?call\b|redis\.(?!p?call\b|acl_check_cmd\b|error_reply\b)\w+")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_of_a_script_is_found_in_its_source(name: str) -> None:
    """Each is named where it is called, and nothing else of Redis is used."""
    code = "\n".join(line.partition("--")[0] for line in scripts.source(name).splitlines())
    assert len(_ANY_CALL.findall(code)) == len(rights._CALL.findall(code))
    assert script_commands(name)


def test_a_user_who_may_do_everything(client: Client) -> None:
    put(client, "1")
    assert read_missing_rights(client, Q, DRAIN) == MissingRights()


@pytest.mark.parametrize("right", sorted(frozenset().union(*map(script_commands, SCRIPTS))))
def test_each_right_that_is_missing_is_named(client: Client, redis_url: str, right: str) -> None:
    put(client, "1")
    with limited_user(client, redis_url, "~*", "+@all", f"-{right.lower()}") as (_, limited):
        refused = read_missing_rights(limited, Q, DRAIN)
    assert refused is not None
    assert {*refused.on_queue, *refused.on_own} == {right.lower()}


def test_keys_that_are_not_granted(client: Client, redis_url: str) -> None:
    put(client, "1")
    with limited_user(client, redis_url, "~bull:*", "+@all") as (_, limited):
        assert read_missing_rights(limited, Q, PAUSE) == MissingRights(on_own=("del", "get", "set"))


def test_a_user_without_scripts(client: Client, redis_url: str) -> None:
    with limited_user(client, redis_url, "~*", "+@all", "-@scripting") as (_, limited):
        assert read_missing_rights(limited, Q, PAUSE) == MissingRights(on_queue=("eval", "evalsha"))


def test_a_redis_that_cannot_say(fake: Client) -> None:
    assert read_missing_rights(fake, Q, DRAIN) is None
