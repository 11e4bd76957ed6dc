"""``config``, ``contexts``, and what a context demands of commands that write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.settings import masked_url
from tests.labs.build import Q, is_paused, put
from tests.labs.cli import Ran, run
from tests.labs.commands import READING, RUNNING, flags_of, leaves
from tests.labs.servers import RedisServer


class Setup:
    """A user's config beside the shared server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.file = folder / "qctl/config.toml"
        self.file.parent.mkdir()
        self.environ = {"XDG_CONFIG_HOME": str(folder), "PM2_HOME": "/nonexistent"}
        self.write(
            f'[redis]\nurl = "redis://:hunter2@base:1/0"\n'
            f'[contexts.prod.redis]\nurl = "{url}"\n'
            f'[contexts.careful]\nconfirm = true\n[contexts.careful.redis]\nurl = "{url}"\n'
            f'[contexts.look]\nread_only = true\n[contexts.look.redis]\nurl = "{url}"\n'
        )

    def write(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    def run(self, *words: str, **options: Any) -> Ran:
        return run(*words, **{**self.environ, **options})


@pytest.fixture
def setup(tmp_path: Path, redis_url: str, client: Client) -> Setup:
    put(client, "1", "active", lock="t")
    return Setup(tmp_path, redis_url)


def test_view_names_every_origin_and_masks_passwords(setup: Setup) -> None:
    ran = setup.run("config", "view", "--prefix", "x", "--json", QCTL_MAX_STALLED_COUNT="4")
    assert "hunter2" not in ran.out + ran.err
    rows = {row["name"]: row for row in json.loads(ran.out)["settings"]}
    assert rows["redis.url"] == {
        "name": "redis.url",
        "value": "redis://:***@base:1/0",
        "origin": {"kind": "file", "name": str(setup.file), "table": "redis"},
    }
    assert rows["redis.prefix"]["origin"] == {"kind": "flag", "name": "--prefix", "table": ""}
    assert rows["redis.max_stalled_count"]["value"] == 4
    assert rows["redis.max_stalled_count"]["origin"]["name"] == "QCTL_MAX_STALLED_COUNT"
    assert rows["context"] == {
        "name": "context",
        "value": None,
        "origin": {"kind": "default", "name": "", "table": ""},
    }
    lines = setup.run("config", "view", "--context", "look").out.splitlines()
    assert [line.split() for line in lines if line.startswith("read_only")] == [
        ["read_only", "yes", str(setup.file), "[contexts.look]"]
    ]


def test_a_password_is_masked_where_a_socket_has_an_at_sign() -> None:
    assert masked_url("unix://:pw@/tmp/a@b.sock") == "unix://:***@/tmp/a@b.sock"


def test_view_masks_the_password_of_supervisord(setup: Setup) -> None:
    url = "http://me:hunter2@127.0.0.1:9001"
    ran = setup.run("config", "view", "--json", QCTL_SUPERVISORD_URL=url)
    rows = {row["name"]: row for row in json.loads(ran.out)["settings"]}
    assert rows["supervisord.url"]["value"] == "http://me:***@127.0.0.1:9001"
    assert rows["supervisord.url"]["origin"]["name"] == "QCTL_SUPERVISORD_URL"
    bad = setup.run("config", "view", "--json", QCTL_SUPERVISORD_URL="http://me:hunter2@elsewhere")
    assert "hunter2" not in bad.out + bad.err


def test_view_runs_no_password_command(setup: Setup) -> None:
    ran = setup.file.parent / "ran"
    setup.write(f'[redis]\npassword_command = ["touch", "{ran}"]')
    shown = setup.run("config", "view").out
    assert "*** from the command touch" in shown
    assert setup.run("contexts").code == 0
    assert not ran.exists()
    assert setup.run("queues").code == 2
    assert ran.exists()


def test_path(setup: Setup) -> None:
    assert json.loads(setup.run("config", "path", "--json").out) == {
        "files": [{"kind": "user", "path": str(setup.file), "exists": True}]
    }
    setup.file.unlink()
    assert setup.run("config", "path").out.split()[-2:] == [str(setup.file), "no"]


def test_contexts_marks_the_chosen_one(setup: Setup) -> None:
    setup.write(setup.file.read_text() + "[contexts.odd.redis]\nurl = 5\n")
    lines = setup.run("contexts", QCTL_CONTEXT="prod").out.splitlines()
    assert [line.split()[0] for line in lines] == ["CHOSEN", "careful", "look", "odd", "*"]
    assert lines[1].endswith("confirm")
    assert lines[2].endswith("read-only")
    assert "url must be a string" in lines[3]
    found = json.loads(setup.run("contexts", "--json", "--context", "look").out)["contexts"]
    assert [row["name"] for row in found if row["chosen"]] == ["look"]
    assert [row["read_only"] for row in found] == [False, True, None, False]


def test_no_contexts(setup: Setup) -> None:
    setup.write("")
    ran = setup.run("contexts")
    assert (ran.code, ran.out) == (0, "")
    assert "no context is defined" in ran.err
    assert json.loads(setup.run("contexts", "--json").out) == {"contexts": []}


def test_warnings_are_told_beside_the_result(setup: Setup) -> None:
    setup.write(setup.file.read_text() + "[redsi]\nurl = 1\n")
    ran = setup.run("queues", "--context", "prod")
    assert (ran.code, ran.out) == (0, "q\n")
    assert ran.err.startswith("config: unknown key [redsi] url in ")


# Guards


def test_every_command_either_reads_or_is_guarded() -> None:
    """A new command that writes has a --dry-run, and by that the guard."""
    guarded = set()
    for words, command in leaves():
        flags = flags_of(command)
        # `mcp` passes the name on to commands that write.
        assert ("--dry-run" in flags or words == "mcp") == ("--confirm" in flags), words
        if "--dry-run" in flags:
            guarded.add(words)
        assert ("--dry-run" in flags) != (words in READING | RUNNING), words
    assert {"pause", "resume", "drain", "restart", "jobs retry-stalled"} <= guarded


WRITES = [
    ["pause", "q"],
    ["resume", "q"],
    ["drain", "q"],
    ["restart", "pm2:worker"],
    ["jobs", "retry-stalled"],
]


@pytest.mark.parametrize("words", WRITES, ids=lambda words: words[0])
def test_read_only_refuses_what_writes(setup: Setup, client: Client, words: list[str]) -> None:
    before = client.call("DUMP", Q("meta"))
    for more in ([], ["--confirm", "look"], ["--json"]):
        ran = setup.run(*words, *more, "--context", "look")
        assert (ran.code, ran.out) == (5, "")
        assert "context look is read-only" in ran.err
        assert f"read_only = true in {setup.file} [contexts.look]" in ran.err
    assert client.call("DUMP", Q("meta")) == before


def test_read_only_lets_a_dry_run_and_reading_through(setup: Setup, client: Client) -> None:
    assert setup.run("pause", "q", "--dry-run", "--context", "look").out.endswith("(dry run)\n")
    assert setup.run("status", "q", "--context", "look").code == 0
    assert not is_paused(client)


def test_read_only_of_the_whole_config(setup: Setup) -> None:
    setup.write("read_only = true\n")
    ran = setup.run("pause", "q")
    assert ran.code == 5
    assert "the config makes qctl read-only" in ran.err
    assert f"read_only = true in {setup.file}\n" in ran.err


def test_confirm_asks_for_the_name(setup: Setup, client: Client) -> None:
    ran = setup.run("pause", "q", "--context", "careful", terminal=True, stdin="carefull\n")
    assert ran.code == 5
    assert "nothing was done" in ran.err
    assert not is_paused(client)
    ran = setup.run("pause", "q", "--context", "careful", terminal=True, stdin="careful\n")
    assert ran.code == 0
    assert ran.err.startswith("This writes to context careful. ")
    assert is_paused(client)


def test_confirm_without_anybody_to_ask(setup: Setup, client: Client) -> None:
    words = ["jobs", "retry-stalled", "q", "--yes", "--context", "careful"]
    ran = setup.run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("try: the same command with --confirm careful\n")
    assert setup.run(*words, terminal=True, stdin="").code == 5
    assert setup.run(*words, "--confirm", "careful").code == 0
    assert setup.run(*words, "--dry-run").code == 0


def test_a_confirmed_name_must_be_the_contexts(setup: Setup, client: Client) -> None:
    for more in ([], ["--context", "careful"], ["--context", "prod", "--dry-run"]):
        ran = setup.run("pause", "q", "--confirm", "other", *more)
        assert ran.code == 2
        assert "--confirm names 'other'" in ran.err
    assert setup.run("pause", "q", "--context", "prod", "--confirm", "prod").code == 0
    assert is_paused(client)


def test_no_other_file_lifts_a_guard(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "qctl.toml").write_text(
        "[contexts.look]\nread_only = false\n[contexts.careful]\nconfirm = false\n"
    )
    monkeypatch.chdir(project)
    assert setup.run("pause", "q", "--context", "look").code == 5
    assert setup.run("pause", "q", "--context", "careful").code == 2
    assert not is_paused(client)


def test_the_redis_of_a_guarded_context_is_guarded_however_it_is_named(
    setup: Setup, redis_url: str, client: Client
) -> None:
    ran = setup.run("pause", "q", "--redis", redis_url)
    assert ran.code == 5
    assert "context look is read-only" in ran.err
    assert setup.run("pause", "q", QCTL_REDIS_URL=redis_url).code == 5
    # Another context that names it is another word for it, without that guard.
    assert setup.run("pause", "q", "--context", "prod").code == 0
    assert is_paused(client)


def test_a_context_with_another_redis_than_its_own_is_told(setup: Setup, redis_url: str) -> None:
    setup.write(setup.file.read_text().replace(redis_url, "redis://elsewhere:1/0"))
    ran = setup.run("queues", QCTL_CONTEXT="prod", QCTL_REDIS_URL=redis_url)
    assert ran.code == 0
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("context prod ")
    assert "QCTL_REDIS_URL" in ran.err


def test_a_password_file_beside_a_url_in_the_environment(
    setup: Setup, tmp_path: Path, start_redis: Callable[..., RedisServer]
) -> None:
    server = start_redis("--requirepass", "hunter3")
    secret = tmp_path / "secret"
    secret.write_text("hunter3\n")
    url = f"redis://127.0.0.1:{server.port}/0"
    ran = setup.run("queues", QCTL_REDIS_URL=url, QCTL_REDIS_PASSWORD_FILE=str(secret))
    assert (ran.code, "hunter3" in ran.err) == (3, False)
    assert "no queue" in ran.err
    assert setup.run("queues", QCTL_REDIS_URL=url).code == 6


def test_a_password_on_the_command_line_is_told(setup: Setup) -> None:
    ran = setup.run("queues", "--redis", "redis://:hunter4@127.0.0.1:1/0")
    assert ran.code == 6
    assert ran.err.startswith("--redis has a password, which every user")
    assert "hunter4" not in ran.err


def test_a_chosen_context_does_not_lift_the_guard_of_the_redis_that_is_written_to(
    setup: Setup, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    setup.write(setup.file.read_text() + '[contexts.dev.redis]\nurl = "redis://elsewhere:1/0"\n')
    ran = setup.run("pause", "q", "--context", "dev", "--redis", redis_url)
    assert ran.code == 5
    assert "context look is read-only" in ran.err
    assert setup.run("pause", "q", QCTL_CONTEXT="dev", QCTL_REDIS_URL=redis_url).code == 5
    # Nor does a project, by a context of its own or by another Redis for the guarded one.
    project = tmp_path / "project"
    project.mkdir()
    (project / "qctl.toml").write_text(
        f'context = "mine"\n[contexts.mine.redis]\nurl = "{redis_url}"\n'
        '[contexts.look.redis]\nurl = "redis://elsewhere:1/0"\n'
    )
    monkeypatch.chdir(project)
    assert setup.run("pause", "q").code == 5
    assert setup.run("pause", "q", "--redis", redis_url).code == 5
    assert not is_paused(client)


def test_of_two_guards_neither_lifts_the_other(
    setup: Setup, redis_url: str, client: Client
) -> None:
    setup.write(
        "[contexts.a]\nconfirm = true\nread_only = false\n"
        f'[contexts.a.redis]\nurl = "{redis_url}"\n'
        '[contexts.b]\nread_only = true\n[contexts.b.redis]\nurl = "redis://elsewhere:1/0"\n'
    )
    ran = setup.run("pause", "q", "--context", "b", "--redis", redis_url, "--confirm", "b")
    assert ran.code == 5
    assert "context b is read-only" in ran.err
    assert not is_paused(client)


@pytest.mark.parametrize("by_flag", [True, False])
def test_a_contexts_name_does_not_confirm_writing_to_another_redis(
    setup: Setup, redis_url: str, client: Client, by_flag: bool
) -> None:
    setup.write(
        '[contexts.prod]\nconfirm = true\n[contexts.prod.redis]\nurl = "redis://elsewhere:1/0"\n'
    )
    words, variables, name = (
        (["--context", "prod", "--redis", redis_url], {}, "--redis")
        if by_flag
        else ([], {"QCTL_CONTEXT": "prod", "QCTL_REDIS_URL": redis_url}, "QCTL_REDIS_URL")
    )
    for more in ({}, {"terminal": True, "stdin": "prod\n"}):
        confirm = [] if more else ["--confirm", "prod"]
        ran = setup.run("pause", "q", *words, *confirm, **variables, **more)
        assert ran.code == 5
        assert f"leave out {name}," in ran.err
        assert "nothing was done" in ran.err
    assert not is_paused(client)
    assert setup.run("pause", "q", "--dry-run", *words, **variables).code == 0
    # Each of the two alone.
    assert setup.run("pause", "q", "--redis", redis_url).code == 0


def test_a_group_that_is_not_valid_stops_only_the_commands_that_name_it(
    setup: Setup, redis_url: str
) -> None:
    setup.environ["QCTL_REDIS_URL"] = redis_url
    setup.write('[groups.bad]\ntargets = "pm2:a"\n[groups.good]\ntargets = ["pm2:a", "pm2:b"]\n')
    status = setup.run("status", "q")
    assert status.code == 0
    assert "[groups.bad] needs targets" in status.err
    view = setup.run("config", "view", "--json")
    values = {row["name"]: row["value"] for row in json.loads(view.out)["settings"]}
    assert (values["groups.bad"], values["groups.good"]) == ("(cannot be used)", "pm2:a, pm2:b")
    for words in (["restart", "bad"], ["impact", "--target", "bad"], ["doctor", "--target", "bad"]):
        ran = setup.run(*words)
        assert (ran.code, ran.out) == (2, ""), words
        assert "error: config: [groups.bad] needs targets" in ran.err
