"""Jobs in bulk on a terminal: what is counted before the question, and what happens then."""

from __future__ import annotations

import re

import pytest

from qctl.connection.address import Client
from tests.labs.build import Q, put, row, scores
from tests.labs.bulk import fill
from tests.labs.cli import Ran, run


def ask(redis_url: str, *words: str, answer: str = "y\n") -> Ran:
    """A command on a terminal that shows no progress; the answer to its question."""
    return run(*words, stdin=answer, terminal=True, QCTL_REDIS_URL=redis_url, TERM="dumb")


def test_the_matching_jobs_are_counted_first(redis_url: str, client: Client) -> None:
    fill(client)
    words = ("jobs", "retry-failed", "q", "--where", "error ~ timeout")
    ran = ask(redis_url, *words, answer="n\n")
    assert ran.code == 5
    assert ran.err.startswith("Retry 20 of 60 failed jobs of q? ")
    assert row(client, "wait") == []
    ran = ask(redis_url, *words)
    assert ran.code == 0
    assert "retried 20 jobs of q" in ran.out
    assert len(row(client, "wait")) == 20


def test_without_a_count_the_question_says_up_to(redis_url: str, client: Client) -> None:
    fill(client)
    words = ("jobs", "retry-failed", "q", "--name", "mail", "--no-count")
    ran = ask(redis_url, *words, answer="n\n")
    assert ran.err.startswith("Retry up to 60 matching failed jobs of q? ")


def test_if_nothing_matches_nothing_is_asked(redis_url: str, client: Client) -> None:
    fill(client, 9)
    ran = ask(redis_url, "purge", "q", "--state", "failed", "--name", "other", answer="")
    assert (ran.code, ran.err) == (0, "")
    assert "deleted 0 jobs of q" in ran.out
    assert "9 of 9 failed scanned" in ran.out


@pytest.mark.parametrize("words", [("--yes",), ("--dry-run",), ("--no-count",), ("--id", "1")])
def test_only_a_question_about_a_filter_counts(
    redis_url: str, client: Client, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 9)

    def scanned(*_: object) -> None:
        raise AssertionError("it counted")

    monkeypatch.setattr("qctl.cli.bulk_run._count", scanned)
    assert ask(redis_url, "jobs", "retry-failed", "q", "--name", "mail", *words).code == 0


def test_the_limit_is_counted(redis_url: str, client: Client) -> None:
    fill(client)
    ran = ask(redis_url, "jobs", "retry-failed", "q", "--name", "mail", "--limit", "7")
    assert "Retry 7 of 60 failed jobs of q? " in ran.err
    assert len(row(client, "wait")) == 7


def scene(client: Client) -> None:
    """Jobs that a count by the filter alone would get wrong, more than one call takes at first."""
    fill(client, 400)
    for n in range(5, 400, 20):
        # Of these, only the first can be retried: they share a deduplication id.
        client.call("HSET", Q(str(n)), "deid", "x", "opts", '{"de":{"id":"x"}}')
    client.call("HSET", Q("7"), "deid", "y", "opts", '{"de":{"id":"y"}}')
    put(client, "owner", "prioritized", score=1, deid="y")
    client.call("SET", Q.dedup("y"), "owner")
    put(client, "late", "delayed", score=4096, name="mail")
    put(client, "held", "delayed", score=8192, lock="t:1", name="mail")
    put(client, "repeat:s:1700000000000", "delayed", score=9999, rjk="s", name="mail")
    client.call("ZADD", Q("repeat"), 1_700_000_000_000, "s")
    put(client, "parent", "waiting-children", score=1, name="mail")
    put(client, "child", parentKey=Q("parent"), parent='{"id":"parent","queueKey":"bull:q"}')
    client.call("SADD", Q("parent:dependencies"), Q("child"))


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "retry-failed", "q", "--name", "mail"),
        ("jobs", "retry-failed", "q", "--where", "error ~ timeout"),
        ("jobs", "promote", "q", "--name", "mail"),
        ("jobs", "remove", "q", "--state", "delayed", "--name", "mail"),
        ("jobs", "remove", "q", "--state", "failed", "--name", "mail"),
        ("jobs", "remove", "q", "--state", "waiting-children", "--name", "mail", "--with-children"),
        ("purge", "q", "--state", "failed", "--until", "2026-01-01T00:03:00Z"),
    ],
)
def test_what_is_counted_is_what_then_happens(
    redis_url: str, client: Client, words: tuple[str, ...]
) -> None:
    scene(client)
    ran = ask(redis_url, *words, answer="q\n" if words[0] == "purge" else "y\n")
    asked = re.search(r"(?:Retry|Promote|Delete) ([\d,]+) of [\d,]+ ", ran.err)
    done = re.search(r"(?:retried|promoted|deleted) ([\d,]+) job", ran.out)
    assert asked is not None, ran.err
    assert done is not None, ran.out
    assert asked[1] == done[1] != "0"
    left = re.search(r"(\d+) (?:more match|more matches) and will be left alone", ran.err)
    assert f"{left[1] if left else 0} left alone" in ran.out
    below = re.search(r"and (\d+) jobs? below", ran.err)
    assert bool(below) == ("--with-children" in words)


def test_more_than_a_thousand_matches_want_the_name(redis_url: str, client: Client) -> None:
    fill(client, 1_100)
    # Of 1,100 jobs, the 550 that match are confirmed by a yes.
    ran = ask(redis_url, "jobs", "retry-failed", "q", "--name", "mail", answer="n\n")
    assert "Retry 550 of 1,100 failed jobs of q? [y/N]" in ran.err
    ran = ask(redis_url, "jobs", "retry-failed", "q", "--since", "2025-01-01", answer="q\n")
    assert "Type q to go on: " in ran.err
    assert len(scores(client, "failed")) == 0


def test_an_interrupted_count_changes_nothing(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 9)
    monkeypatch.setattr("qctl.ops.bulk.run.BulkRun._is_limit_reached", lambda _: False)

    class Stopped:
        def __enter__(self) -> object:
            return lambda: True

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("qctl.cli.bulk_run.stop_on_signals", lambda *_: Stopped())
    ran = ask(redis_url, "jobs", "retry-failed", "q", "--name", "mail")
    assert (ran.code, ran.out) == (130, "")
    assert "nothing was changed" in ran.err
    assert row(client, "wait") == []
