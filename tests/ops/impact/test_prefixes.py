"""``impact`` on queues of several key prefixes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qctl.config.files import Origin
from qctl.config.prefixes import parse_prefixes
from qctl.config.settings import Settings, TargetConfig
from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.ops.impact.assess import Impact
from qctl.ops.impact.jobs_at_risk import JobRef
from qctl.ops.processes.suggest import commands_like
from qctl.wire.drain_record import record_starts
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import ForeignWorker
from tests.labs import impact as labs
from tests.labs.build import put
from tests.labs.impact import SETTINGS, Apps, now_ms, run

apps = labs.apps
MAIL, OTHER_MAIL = QueueKeys("a", "mail"), QueueKeys("b", "mail")


def under(*words: str) -> Settings:
    return replace(SETTINGS, prefixes=parse_prefixes(words))


BOTH = under("a", "b")


def ask(client: Client, *words: str, settings: Settings, **options: Any) -> Impact:
    with commands_like(settings):
        return labs.ask(client, *words, settings=settings, **options)


@pytest.fixture(autouse=True)
def queues(client: Client, apps: Apps) -> None:
    """One app serves two queues with the same name."""
    put(client, "1", "completed", keys=MAIL)
    put(client, "1", "completed", keys=OTHER_MAIL)
    apps.owned = {
        "0": (apps.worker(1, queue="mail", prefix="a"), apps.worker(2, queue="mail", prefix="b"))
    }


@pytest.mark.parametrize("words", [("a", "b"), ("*",), ("?", "c")])
def test_the_answer_is_about_the_queues_of_all_prefixes(
    client: Client, apps: Apps, words: tuple[str, ...]
) -> None:
    settings = under(*words)
    for options in ({}, {"target": "pm2:app"}):
        told = ask(client, settings=settings, **options)
        assert (told.verdict.word, told.prefix, told.target) == ("safe", None, "pm2:app")
        assert [queue.keys for queue in told.queues] == [MAIL, OTHER_MAIL]
        assert told.verdict.commands == ("qctl restart pm2:app",)
    assert told.processes[0].queues == ("mail@a", "mail@b")
    # Only one of the two queues has a job that runs, workers of others, and a pause.
    apps.others = (replace(apps.worker(3, "x", queue="mail", prefix="b")),)
    run(client, "7", OTHER_MAIL)
    client.call("HSET", MAIL("meta"), "paused", 1)
    told = ask(client, settings=settings)
    assert told.verdict.word == "drain first"
    assert told.interrupted == (JobRef("mail@b", "7"),)
    assert [delay.queue for delay in told.recovery] == ["mail@b"]
    assert [(q.paused, q.active, q.workers, q.other_workers) for q in told.queues] == [
        (True, 0, 1, 0),
        (False, 1, 1, 1),
    ]


def test_the_commands_have_the_prefixes_that_were_typed(client: Client, apps: Apps) -> None:
    put(client, "lost", "active", keys=OTHER_MAIL)
    settings = replace(under("?", "c"), origins={"redis.prefix": Origin("flag")})
    told = ask(client, settings=settings).verdict
    assert told.commands == ("qctl restart pm2:app --prefix '?' --prefix c",)
    assert "(qctl jobs retry-stalled mail --prefix b puts stalled jobs back)" in told.reasons[0]
    apps.processes, apps.owned = [], {}
    told = ask(client, settings=settings).verdict
    assert told.commands == (
        "qctl drain mail --prefix b",
        "qctl resume mail --prefix b",
    )
    put(client, "2", keys=MAIL)
    assert (
        ask(client, settings=settings).verdict.commands[0].startswith("qctl drain mail@a mail@b ")
    )


def test_the_pause_that_a_start_ends_is_of_one_prefix(client: Client, apps: Apps) -> None:
    for keys in (MAIL, OTHER_MAIL):
        client.call("HSET", keys("meta"), "paused", 1)
    record_starts(client, "b", "pm2:app", now_ms(), resumed=["mail"], kept=[])
    told = ask(client, settings=BOTH).verdict
    assert told.word == "drain first"
    assert "ends the pause of mail@b" in told.reasons[0]
    client.call("HDEL", MAIL("meta"), "paused")
    told = ask(client, settings=BOTH).verdict
    assert told.commands == ("qctl restart pm2:app", "qctl pause mail --prefix b")


def test_what_was_not_selected_is_not_safe(client: Client, apps: Apps) -> None:
    for settings, words, expected in (
        (under("a"), (), "qctl restart pm2:app --include-others"),
        (under("a"), ("mail",), "qctl restart pm2:app --include-others"),
        # The prefix of a queue that is named is selected.
        (under("c"), ("mail@a",), "qctl restart pm2:app --include-others --prefix a"),
    ):
        told = ask(client, *words, settings=settings)
        assert (told.verdict.word, told.foreign, told.prefix) == ("drain first", ("mail@b",), "a")
        assert told.verdict.reasons == ("the target also serves mail@b, whose jobs were not read",)
        assert told.verdict.commands == (expected,)
    assert ask(client, "mail@a", "mail@b", settings=under("c")).verdict.word == "safe"
    # One drain does not include another database.
    apps.foreign = {"0": (ForeignWorker("bull:b3RoZXI=", 3),)}
    told = ask(client, settings=under("a"))
    assert told.foreign == ("mail@b", "other (prefix bull, database 3)")
    assert told.verdict.commands == (
        "qctl drain mail --prefix b",
        "qctl drain other --prefix bull --redis redis://localhost:6379/3",
        "qctl restart pm2:app --ignore-others",
        "qctl resume mail --prefix b",
        "qctl resume other --prefix bull --redis redis://localhost:6379/3",
    )


def test_queues_that_only_their_names_select(client: Client, apps: Apps) -> None:
    told = ask(client, "mail@a", "mail@b", settings=under("c")).verdict
    # `qctl restart` would find no queue under the prefix in force.
    assert told.commands == ("qctl drain mail@a mail@b --then-restart --target pm2:app",)


def test_an_app_that_serves_no_selected_queue(client: Client, apps: Apps) -> None:
    put(client, "1", keys=QueueKeys("c", "mail"))
    with pytest.raises(UsageError, match="serves no queue under the key prefixes") as raised:
        ask(client, settings=under("c"), target="pm2:app")
    assert raised.value.why == "it serves mail@a, mail@b"
    apps.owned, apps.foreign = {}, {"0": (ForeignWorker("bull:b3RoZXI=", 3),)}
    with pytest.raises(UsageError, match="no queue of this database") as raised:
        ask(client, settings=under("c"), target="pm2:app")
    assert raised.value.hint == "qctl impact --target pm2:app --redis redis://localhost:6379/3"


def test_the_config_names_queues_as_a_command_line_does(client: Client, apps: Apps) -> None:
    config = TargetConfig("ingest", "pm2:app", ("mail@a", "mail@b"))
    settings = replace(under("c"), targets=(config,))
    apps.owned = {}
    told = ask(client, target="ingest", settings=settings)
    assert [queue.keys for queue in told.queues] == [MAIL, OTHER_MAIL]
    assert told.verdict.commands == ("qctl restart pm2:app",)


def test_workers_of_another_prefix_at_the_same_address(client: Client, apps: Apps) -> None:
    apps.processes, apps.owned, apps.others = [], {}, apps.owned["0"]
    told = ask(client, "mail", settings=under("a")).verdict
    assert told.word == "drain first"
    assert told.reasons[0].startswith("the same processes may serve mail@b, whose workers connect")
    assert told.commands == ("qctl impact mail@a mail@b",)
    assert ask(client, "mail", settings=BOTH).verdict.word == "safe"
