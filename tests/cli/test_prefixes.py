"""Commands on queues of several key prefixes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import LIST_CLIENTS, client_name
from tests.labs.build import put
from tests.labs.cli import Ran, check_hint, qctl, run

MAIL, VIDEO, OTHER_MAIL = (
    QueueKeys("{mail}", "mail"),
    QueueKeys("host:queue:video", "video"),
    QueueKeys("staging", "mail"),
)
PER_QUEUE = ("--prefix", "{$QUEUE}", "--prefix", "host:queue:$QUEUE")


@pytest.fixture
def url(redis_url: str, client: Client) -> str:
    """Two queues with a prefix each, and another ``mail`` under a third prefix."""
    for keys in (MAIL, VIDEO, OTHER_MAIL):
        put(client, "1", keys=keys)
        put(client, "2", "active", keys=keys)
    return redis_url


def names(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.err
    return [f"{q['name']}@{q['prefix']}" for q in json.loads(ran.out)["queues"]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (PER_QUEUE, [VIDEO, MAIL]),
        (("--prefix", "{*}"), [MAIL]),
        (("--all-prefixes",), [VIDEO, OTHER_MAIL, MAIL]),
        (("mail", "--all-prefixes"), [OTHER_MAIL, MAIL]),
        (("mail", *PER_QUEUE), [MAIL]),
        (("video", "mail", *PER_QUEUE), [VIDEO, MAIL]),
        (("mail@staging", "mail@{mail}"), [OTHER_MAIL, MAIL]),
        (("mail@staging", "--prefix", "nothing"), [OTHER_MAIL]),
    ],
)
def test_status_of_several_prefixes(
    url: str, words: tuple[str, ...], expected: list[QueueKeys]
) -> None:
    wanted = [keys.full_name for keys in expected]
    assert names(qctl(url, "status", *words, "--json")) == wanted
    shown = qctl(url, "status", *words).out.splitlines()
    heading = next(index for index, line in enumerate(shown) if line.startswith("QUEUE"))
    rows = [line.split()[0] for line in shown[heading + 1 : heading + 1 + len(expected)]]
    # The prefix is in the table only if there are several.
    is_single = len({keys.prefix for keys in expected}) == 1
    assert rows == ([keys.name for keys in expected] if is_single else wanted)
    where = f"prefix {expected[0].prefix}" if is_single else f"{len(expected)} prefixes"
    assert where in shown[0]


def test_the_environment_and_the_config_take_lists(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("status", "--json", "--redis", url)
    assert names(run(*words, QCTL_PREFIX="staging,{$QUEUE}")) == [
        OTHER_MAIL.full_name,
        MAIL.full_name,
    ]
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "qctl.toml"
    config.write_text('[redis]\nprefix = ["staging", "{$QUEUE}"]\n')
    assert names(run(*words)) == [OTHER_MAIL.full_name, MAIL.full_name]
    view = json.loads(run("config", "view", "--json").out)["settings"]
    (value,) = [each["value"] for each in view if each["name"] == "redis.prefix"]
    assert value == "staging,{$QUEUE}"
    config.write_text("[redis]\nprefix = [1]\n")
    assert run(*words).code == 2
    assert run(*words, "--prefix", "a", "--all-prefixes").code == 2


def test_status_names_other_prefixes_once(url: str) -> None:
    ran = qctl(url, "status", "--prefix", "staging")
    assert ran.out.count("{mail}") == 1
    assert ran.out.splitlines()[0].endswith("queues also under host:queue:video, {mail}")
    report = json.loads(qctl(url, "status", "--prefix", "staging", "--json").out)
    assert report["other_prefixes"] == ["host:queue:video", "{mail}"]
    # There is no search if the queues are named.
    named = json.loads(qctl(url, "status", "mail", "--prefix", "staging", "--json").out)
    assert named["other_prefixes"] is None


def test_one_list_of_clients_for_all_prefixes(url: str, client: Client) -> None:
    for keys in (MAIL, VIDEO):
        client.call("CLIENT", "SETNAME", client_name(keys.prefix, keys.name, "w"))
        client.call("CONFIG", "RESETSTAT")
        report = json.loads(qctl(url, "status", "--all-prefixes", "--json").out)
        workers = {queue["prefix"]: queue["workers"] for queue in report["queues"]}
        assert workers == {other.prefix: int(other == keys) for other in (MAIL, VIDEO, OTHER_MAIL)}
        stats = client.call("INFO", "commandstats")
        assert f"cmdstat_{'|'.join(LIST_CLIENTS[:2]).lower()}:calls=1," in stats
        (row,) = json.loads(qctl(url, "workers", "--all-prefixes", "--json").out)["workers"]
        assert (row["queue"], row["prefix"], row["name"]) == (keys.name, keys.prefix, "w")
        assert json.loads(qctl(url, "workers", "mail@staging", "--json").out) == {"workers": []}


def test_queues_by_prefix(url: str) -> None:
    ran = qctl(url, "queues", "--all-prefixes")
    assert ran.out.split() == [keys.full_name for keys in (VIDEO, OTHER_MAIL, MAIL)]
    found = json.loads(qctl(url, "queues", "--all-prefixes", "--json").out)
    assert found["by_prefix"] == {k.prefix: [k.name] for k in (VIDEO, OTHER_MAIL, MAIL)}


def test_metrics_have_the_prefix(url: str) -> None:
    ran = qctl(url, "metrics", "--all-prefixes")
    for keys in (MAIL, VIDEO, OTHER_MAIL):
        labels = f'prefix="{keys.prefix}",queue="{keys.name}",state="waiting"'
        assert f"qctl_queue_jobs{{{labels}}} 1.0" in ran.out


def test_a_command_on_one_queue_finds_its_prefix(url: str) -> None:
    (job,) = json.loads(
        qctl(url, "jobs", "list", "video", "--state", "waiting", *PER_QUEUE, "--json").out
    )["jobs"]
    assert job["id"] == "1"
    shown = qctl(url, "jobs", "show", "mail@staging", "1", "--json")
    assert json.loads(shown.out)["id"] == "1"
    ambiguous = qctl(url, "purge", "mail", "--state", "waiting", "--yes", "--all-prefixes")
    assert (ambiguous.code, ambiguous.out) == (2, "")
    assert "mail@staging, mail@{mail}" in ambiguous.err
    done = qctl(url, "purge", "mail@staging", "--state", "waiting", "--yes", "--all-prefixes")
    assert done.code == 0
    left = qctl(url, "status", "mail", "--all-prefixes", "--json")
    queues = json.loads(left.out)["queues"]
    counts = {queue["prefix"]: queue["counts"]["waiting"] for queue in queues}
    assert counts == {"staging": 0, "{mail}": 1}


def test_a_queue_under_another_prefix_is_named_with_the_command(url: str) -> None:
    for words in (
        ("status", "video"),
        ("jobs", "list", "video", "--state", "failed"),
        ("doctor", "video"),
        ("wait", "video", "--for", "idle"),
        ("jobs", "retry-stalled", "video"),
        ("impact", "video"),
    ):
        ran = qctl(url, *words)
        assert (ran.code, ran.out) == (3, ""), words
        assert "'host:queue:video'" in ran.err, words
        hint = ran.err.splitlines()[-1].removeprefix("try: ")
        assert hint == "qctl status video --prefix host:queue:video"
        check_hint(hint)
        assert qctl(url, *hint.split()[1:]).code == 0


def test_jobs_are_added_where_the_pattern_says(url: str, client: Client) -> None:
    ran = qctl(url, "jobs", "add", "new", "job", "--create", "--prefix", "{$QUEUE}")
    assert ran.code == 0
    assert client.call("LLEN", QueueKeys("{new}", "new")("wait")) == 1
    assert qctl(url, "jobs", "add", "newer", "job", "--create", "--all-prefixes").code == 2


def test_stalled_jobs_of_several_prefixes(url: str, client: Client) -> None:
    ran = qctl(url, "jobs", "retry-stalled", *PER_QUEUE, "--json", "--yes")
    assert {
        (q["name"], q["prefix"], tuple(q["retried"])) for q in json.loads(ran.out)["queues"]
    } == {("mail", "{mail}", ("2",)), ("video", "host:queue:video", ("2",))}
    assert client.call("LLEN", OTHER_MAIL("active")) == 1
    text = qctl(url, "jobs", "retry-stalled", "--all-prefixes", "--yes").out
    assert text.startswith("mail@staging: 1 job put back")


def test_doctor_names_the_prefix(url: str) -> None:
    found = json.loads(qctl(url, "doctor", "--all-prefixes", "--json").out)
    stalled = [f for f in found["findings"] if f["check"] == "stalled"]
    assert {f["subject"]["name"] for f in stalled} == {
        keys.full_name for keys in (MAIL, VIDEO, OTHER_MAIL)
    }
    for finding in stalled:
        name, _, prefix = finding["subject"]["name"].partition("@")
        assert all(name in c and prefix in c for c in finding["commands"]), finding
    assert found["examined"]["queues"] == 3
    of_redis = [f["check"] for f in found["findings"] if f["subject"]["kind"] == "redis"]
    assert len(of_redis) == len(set(of_redis))
    (alone,) = json.loads(qctl(url, "doctor", "mail@{mail}", "--json").out)["findings"][:1]
    assert alone["subject"]["name"] in {"mail", ""}


def test_impact_of_several_prefixes(url: str) -> None:
    for words, expected in (
        (("--all-prefixes",), {VIDEO, MAIL, OTHER_MAIL}),
        (("mail", "video", *PER_QUEUE), {MAIL, VIDEO}),
        (("mail@{mail}",), {MAIL}),
    ):
        told = json.loads(qctl(url, "impact", *words, "--json").out)
        assert {QueueKeys(q["prefix"], q["name"]) for q in told["queues"]} == expected
        is_single = len(expected) == 1
        assert told["prefix"] == (MAIL.prefix if is_single else None)
        names = {"mail"} if is_single else {keys.full_name for keys in expected}
        assert {job["queue"] for job in told["jobs"]} == names
        text = qctl(url, "impact", *words).out
        assert all(name in text for name in names)
    # The drain that is recommended finds these queues from the same command line.
    for hint in told["verdict"]["commands"]:
        check_hint(hint)
    typed = shlex.split(told["verdict"]["commands"][0])
    done = qctl(url, *typed[1:], "--dry-run", "--json")
    assert json.loads(done.out)["queues"] == ["mail"]
