"""Docker's answers, given by a script in place of the `docker` command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qctl.errors import ManagerUnreachableError, NotFoundError, RefusedError
from qctl.manage.docker.manager import Docker
from qctl.manage.tool import ToolFailedError
from tests.labs.docker_rows import ROW
from tests.labs.scripts import write_script

ID = ROW["id"]
LISTED = f"{ID}\tshop-worker-2,web/alias\tshop\tworker\tFalse\n"
# The first call of inspect fails, as for a container that was removed a moment ago.
FAIL_ONCE = "if mkdir failed 2>/dev/null; then echo 'no such container' >&2; exit 1; fi"
Answers = Callable[..., None]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Sets what `docker ps` and `docker inspect` print, and what inspect does before."""

    def write(listed: str, inspected: object, before: str = "") -> None:
        (tmp_path / "ps").write_text(listed)
        text = inspected if isinstance(inspected, str) else json.dumps(inspected) + "\n"
        (tmp_path / "inspect").write_text(text)
        write_script(
            tmp_path / "docker",
            f'cd {tmp_path}\nif [ "$1" = inspect ]; then :; {before}\nfi\ncat "$1"',
        )

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return write


def test_the_ways_to_name_a_container(answers: Answers) -> None:
    answers(LISTED, ROW)
    for name in ("shop-worker-2", ID, ID[:6]):
        (found,) = Docker().find(name)
        assert (found.target, found.key) == ("docker:shop-worker-2", "shop-worker-2")
    (found,) = Docker().find("shop/worker")
    assert found.target == "docker:shop/worker"
    for name in (ID[:5], "SHOP/worker", "shop", "--all"):
        with pytest.raises(NotFoundError):
            Docker().find(name)


def test_an_id_of_several_containers(answers: Answers) -> None:
    answers(LISTED + f"{ID[:60]}ffff\tother\t\t\t\n", ROW)
    with pytest.raises(RefusedError, match="several containers have an id that begins with c0ffee"):
        Docker().find("c0ffee")


def test_no_container_at_all(answers: Answers) -> None:
    answers("", "")
    with pytest.raises(NotFoundError) as caught:
        Docker().find("worker")
    assert (caught.value.why, Docker().processes()) == ("Docker has no container at all", [])


def test_a_container_that_is_gone(answers: Answers) -> None:
    answers("", "", "exit 1")
    assert Docker().process("shop-worker-2") is None
    answers(LISTED, "", "exit 1")
    with pytest.raises(ToolFailedError):
        Docker().process("shop-worker-2")


def test_a_container_that_is_removed_while_all_are_read(answers: Answers) -> None:
    answers(LISTED, ROW, FAIL_ONCE)
    assert [each.key for each in Docker().processes()] == ["shop-worker-2"]


@pytest.mark.parametrize("nonsense", ["{}\n", "hunter2\n", '{"id": 1}\n'])
def test_an_answer_that_is_not_understood(answers: Answers, nonsense: str) -> None:
    answers(LISTED, nonsense)
    with pytest.raises(
        ManagerUnreachableError, match="Docker's answer is not understood"
    ) as caught:
        Docker().processes()
    assert "hunter2" not in caught.value.why
    assert caught.value.__context__ is None


def test_docker_is_not_asked_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Docker().holding([1], ["127.0.0.1", "::1"]) == []
    with pytest.raises(ManagerUnreachableError, match="`docker ps` gave no answer") as caught:
        Docker().holding([], ["172.18.0.3"])
    assert (caught.value.why, caught.value.hint) == (
        "there is no command docker",
        "see whether `docker ps` works for this user",
    )


def test_the_holder_of_an_address(answers: Answers) -> None:
    answers(LISTED, ROW)
    assert [each.key for each in Docker().holding([], ["172.18.0.3"])] == ["shop-worker-2"]
    assert Docker().holding([], ["172.18.0.4"]) == []


def test_secrets_in_a_command_stay_out(answers: Answers) -> None:
    row: dict[str, Any] = {**ROW, "command": ["npm", "start", "--token=hunter2"]}
    answers(LISTED, row)
    assert "hunter2" not in repr(Docker().processes())
