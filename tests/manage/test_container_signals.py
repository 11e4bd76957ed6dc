"""Which commands of containers pass the stop signal on to the worker."""

from __future__ import annotations

import pytest

from qctl.manage.container_signals import has_init, signal_name, trouble_of


@pytest.mark.parametrize(
    "command",
    [
        "node worker.js",
        "docker-entrypoint.sh node worker.js",
        "tini -- node worker.js",
        "/usr/bin/tini -g -- docker-entrypoint.sh node worker.js",
        "/entrypoint.sh node worker.js",
        "python -m worker",
        "",
    ],
)
def test_a_worker_that_gets_the_signal(command: str) -> None:
    assert trouble_of(command.split(), "SIGTERM", None) == ""


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["/bin/sh", "-c", "node worker.js"], "`sh -c`"),
        (["bash", "-ec", "-c", "migrate && node worker.js"], "`bash -c`"),
        (["tini", "--", "sh", "-c", "node worker.js"], "`sh -c`"),
        (["docker-entrypoint.sh", "sh", "-c", "exec x; node worker.js"], "`sh -c`"),
        (["npm", "start"], "npm"),
        (["npm run worker"], "npm"),
        (["node", "/usr/lib/node_modules/npm/bin/npm-cli.js", "start"], "npm"),
        (["dumb-init", "yarn", "start"], "yarn"),
        (["node", "/usr/bin/pm2-runtime", "app.js"], "pm2-runtime"),
    ],
)
def test_a_worker_that_may_not_get_it(words: list[str], program: str) -> None:
    assert f"its command is {program}, which " in trouble_of(words, "SIGTERM", None)


@pytest.mark.parametrize("script", ["exec node worker.js", "cd /app && exec node worker.js"])
def test_a_shell_that_becomes_the_worker(script: str) -> None:
    assert trouble_of(["/bin/sh", "-c", script], "SIGTERM", None) == ""


def test_arguments_are_not_repeated() -> None:
    assert "secret" not in trouble_of(["npm", "start", "--password=secret"], "SIGTERM", None)
    assert "secret" not in trouble_of(["sh", "-c", "worker --password=secret"], "SIGTERM", None)


def test_a_signal_that_nobody_can_handle() -> None:
    assert trouble_of(["node"], "SIGKILL", None) == (
        "its stop signal is SIGKILL, which no worker can handle"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [("", "SIGTERM"), ("SIGINT", "SIGINT"), ("quit", "SIGQUIT"), ("15", "SIGTERM"), ("99", "99")],
)
def test_names_of_signals(text: str, name: str) -> None:
    assert signal_name(text) == name


def test_an_init() -> None:
    assert has_init(["/sbin/tini", "--", "node"], None)
    assert not has_init(["node", "tini"], None)
    assert not has_init([], None)
