"""Which queues and which process a drain means, and when it refuses to begin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs.drains import Lab, write_config


@pytest.fixture(scope="module")
def town(shared_lab: Lab) -> Lab:
    """Three apps: ``pair`` serves a and b; ``one`` and ``two`` both serve c."""
    shared_lab.app("pair", "a,b", options={"namespace": "letters"})
    shared_lab.app("one", "c")
    shared_lab.app("two", "c")
    for queue in "abcd":
        shared_lab.add(1, queue=queue)
    return shared_lab


@pytest.fixture(autouse=True)
def unchanged(town: Lab) -> Iterator[None]:
    """What refuses to begin must not have begun."""
    pids = {row.pm_id: row.pid for row in town.pm2.rows()}
    yield
    assert {row.pm_id: row.pid for row in town.pm2.rows()} == pids
    town.prove_tidy("a", "b", "c", "d")


def refused(lab: Lab, code: int, *args: str) -> str:
    """Its stderr, having made sure of the exit code."""
    done = lab.qctl(*args)
    assert done.code == code, done.err
    assert done.out == ""
    return done.err


def test_a_process_that_serves_another_queue_too(town: Lab) -> None:
    err = refused(town, 5, "drain", "a", "--then-restart", "--target", "pm2:pair")
    assert "also serves b" in err
    assert "--include-others" in err
    assert "--ignore-others" in err


def test_a_refusal_is_a_report_too(town: Lab) -> None:
    done = town.qctl("drain", "a", "--then-restart", "--target", "pm2:pair", "--json")
    assert done.code == 5
    assert done.json["outcome"] == "refused"
    assert done.json["queues"] == ["a"]
    assert "also serves b" in done.json["error"]


def test_including_the_others_or_ignoring_them_is_told_beforehand(town: Lab) -> None:
    base = ("drain", "a", "--then-restart", "--target", "pm2:pair", "--dry-run", "--json")
    assert town.qctl(*base, "--include-others").json["queues"] == ["a", "b"]
    assert town.qctl(*base, "--ignore-others").json["queues"] == ["a"]


def test_a_target_that_does_not_serve_the_queue(town: Lab) -> None:
    err = refused(town, 5, "drain", "a", "--then-restart", "--target", "pm2:one")
    assert "pm2:one does not serve a" in err
    assert "connected to c" in err


def test_a_target_that_does_not_exist(town: Lab) -> None:
    err = refused(town, 3, "drain", "a", "--then-restart", "--target", "pm2:pear")
    assert "pm2:one" in err
    assert "pm2:two" in err
    assert "did you mean pm2:pair?" in err


@pytest.mark.parametrize("target", ["nosuch", "pm2:", "pm2"])
def test_a_target_that_is_none(town: Lab, target: str) -> None:
    err = refused(town, 3, "drain", "a", "--then-restart", "--target", target)
    assert "MANAGER:NAME" in err


def test_a_manager_that_qctl_does_not_know(town: Lab) -> None:
    err = refused(town, 2, "drain", "a", "--then-restart", "--target", "launchd:pair")
    assert "pm2" in err


def test_a_name_that_is_a_namespace(town: Lab) -> None:
    err = refused(town, 3, "drain", "a", "--then-restart", "--target", "pm2:letters")
    assert "namespace" in err
    assert "pm2:pair" in err


def test_a_queue_that_does_not_exist_is_no_idle_queue(town: Lab) -> None:
    assert "aa" in refused(town, 3, "drain", "aa")
    err = refused(town, 3, "drain", "a", "nosuch", "--then-restart", "--target", "pm2:pair",
                  "--include-others")  # fmt: skip
    assert "nosuch" in err


def test_several_processes_serve_the_queue(town: Lab) -> None:
    err = refused(town, 2, "drain", "c", "--then-restart")
    assert "pm2:one (c), pm2:two (c)" in err


def test_no_process_serves_the_queue(town: Lab) -> None:
    err = refused(town, 2, "drain", "d", "--then-restart")
    assert "--target" in err


def test_nothing_is_named_and_several_could_be_meant(town: Lab) -> None:
    assert "--target" in refused(town, 2, "drain", "--then-restart")


def test_a_target_that_was_found_needs_a_yes(town: Lab) -> None:
    err = refused(town, 2, "drain", "a", "b", "--then-restart")
    assert "pm2:pair" in err
    assert "--yes" in err


def test_on_timeout_restart_without_a_restart(town: Lab) -> None:
    assert "--then-restart" in refused(town, 2, "drain", "a", "--on-timeout", "restart")


@pytest.mark.parametrize("timeout", ["soon", "-3s", "", "5"])
def test_a_timeout_that_is_none(town: Lab, timeout: str) -> None:
    done = town.qctl("drain", "a", "--timeout", timeout, "--dry-run")
    # A bare number may be taken as seconds; what it must not be is a crash.
    assert done.code in ({0, 2} if timeout == "5" else {2}), done.err
    assert "unexpected" not in done.err


def test_no_pm2_there(town: Lab) -> None:
    done = town.qctl(
        "drain", "a", "--then-restart", "--target", "pm2:pair",
        env={"PM2_HOME": str(town.folder / "nowhere")},
    )  # fmt: skip
    assert done.code == 6
    assert "PM2" in done.err
    # Asking has not started a daemon.
    assert not (town.folder / "nowhere").exists()


def test_no_redis_there(town: Lab) -> None:
    done = town.qctl(
        "drain", "a", "--then-restart", "--target", "pm2:pair",
        "--redis", "redis://127.0.0.1:1/0",
    )  # fmt: skip
    assert done.code == 6
    assert "127.0.0.1:1" in done.err


def test_the_config_names_targets(town: Lab) -> None:
    write_config(
        town.folder,
        '[targets.letters]\nprocess = "pm2:pair"\nqueues = ["a", "b"]\n'
        '[targets.far]\nprocess = "pm2:one"\nqueues = ["c", "d"]\n',
    )
    try:
        by_name = town.qctl("drain", "--then-restart", "--target", "letters", "--dry-run", "--json")
        assert (by_name.json["target"], by_name.json["queues"]) == ("pm2:pair", ["a", "b"])
        # d has no worker connection that could be matched; the config says who serves it.
        by_queue = town.qctl(
            "drain", "d", "--then-restart", "--include-others", "--dry-run", "--json"
        )
        assert (by_queue.json["target"], by_queue.json["queues"]) == ("pm2:one", ["d", "c"])
        err = refused(town, 3, "drain", "--then-restart", "--target", "letter")
        assert "far, letters" in err
    finally:
        write_config(town.folder, "")
