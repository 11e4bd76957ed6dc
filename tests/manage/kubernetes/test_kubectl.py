"""What a ``kubectl`` that fails, hangs or answers nonsense leads to; a script stands in for it."""

import time
from pathlib import Path

import pytest

from qctl.errors import ManagerUnreachableError
from qctl.manage.kubernetes.manager import Kubernetes
from tests.labs.drains import SECRET
from tests.labs.scripts import write_script

LOG = "E1130 16:25:03.123456     123 memcache.go:265] couldn't get current server API group list"


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a script named kubectl on PATH, with nothing else; the test writes it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "kubectl"


def error_of(
    script: Path, text: str, context: str = "", **options: float
) -> ManagerUnreachableError:
    write_script(script, text)
    with pytest.raises(ManagerUnreachableError) as caught:
        Kubernetes(context, **options).find("deploy/emails")
    assert caught.value.hint
    assert SECRET not in "".join(caught.value.lines)
    return caught.value


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("Error from server (Forbidden): deployments.apps emails is forbidden", "a right"),
        ("error: You must be logged in to the server (Unauthorized)", "does not accept this user"),
        ("error: context was not found for specified context: x", "has no context"),
        ("Unable to connect to the server: x509: certificate has expired", "cannot be reached"),
        ("", "cannot be reached"),
    ],
)
def test_the_errors_of_kubectl(kubectl: Path, message: str, what: str) -> None:
    error = error_of(kubectl, f'echo "{LOG}" >&2; echo "{message}" >&2; exit 1')
    assert what in error.what
    assert message in error.why


def test_one_that_hangs(kubectl: Path) -> None:
    began = time.monotonic()
    error = error_of(kubectl, "exec /bin/sleep 60", timeout_s=0.3)
    assert time.monotonic() - began < 20
    assert "no answer" in error.what


@pytest.mark.parametrize("nonsense", ["hello", "a\tb\tc", "shop\tu\tx\t1\t1\t\t\t\t\t\t\tapp=x"])
def test_one_that_answers_nonsense(kubectl: Path, nonsense: str) -> None:
    error = error_of(kubectl, f"printf '%s\\n' '{nonsense}' 'token\t{SECRET}'")
    assert "not understood" in error.what


def test_pods_that_are_nonsense(kubectl: Path) -> None:
    workload = "shop\tuid\t1\t1\t1\t\t\t\t600\t\t\tapp=x,"
    script = f"case $* in *replicasets*) printf '%s' \"$PODS\";; *) printf '%s' '{workload}';; esac"
    for pods in ("pod\tx", f"set\tu\tuid\t{SECRET}", "pod\tx\tuid" + "\t" * 9 + f"[{SECRET}\t"):
        error = error_of(kubectl, f"PODS='{pods}'\n{script}")
        assert "not understood" in error.what


def test_no_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ManagerUnreachableError, match="no `kubectl` command"):
        Kubernetes().find("deploy/emails")
