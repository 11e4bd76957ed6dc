"""The pinned versions of the tests, and the check of licences and known vulnerabilities."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "tests/constraints.txt"
PACKAGE_LOCK = ROOT / "tests/interop/package-lock.json"
DJANGO = {"name": "django", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": []}]}
RICH = {"name": "rich", "version": "15.0.0", "vulns": []}
GROWL = {"growl": {"severity": "critical"}}


# The locks


def test_everything_that_the_tests_ask_for_is_pinned() -> None:
    """For each Python from 3.11 on: exactly one version, which pyproject.toml allows."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*extras["dependencies"], *extras["optional-dependencies"]["dev"]]
    wanted += extras["optional-dependencies"]["recipes"]
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    pins = [Requirement(line) for line in lines]
    for minor in range(11, 15):
        python = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9"}
        versions: dict[str, str] = {}
        for pin in pins:
            if pin.marker is None or pin.marker.evaluate({**python, "extra": ""}):
                name = canonicalize_name(pin.name)
                assert name not in versions
                versions[name] = str(pin.specifier).removeprefix("==")
        for text in wanted:
            need = Requirement(text)
            assert versions[canonicalize_name(need.name)] in need.specifier, (minor, text)


def test_the_locks_name_no_index() -> None:
    text = CONSTRAINTS.read_text() + PACKAGE_LOCK.read_text()
    assert not re.search(r"--(?:index|extra-index|find-links)|\"resolved\"|@ file:", text)
    assert "://" not in CONSTRAINTS.read_text()
    packages = json.loads(PACKAGE_LOCK.read_text())["packages"]
    assert all(row["integrity"] for where, row in packages.items() if where and not row.get("link"))


def test_ci_uses_the_lock() -> None:
    assert "-c tests/constraints.txt" in (ROOT / ".ci/run").read_text()


# The check. pip-audit and npm are stand-ins: their services may not be reached from here, and must
# not decide whether the tests pass.


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    loader = SourceFileLoader("supply", str(ROOT / "scripts/check-supply-chain"))
    spec = spec_from_loader("supply", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "pip_audit", lambda *_: ["pip-audit"])
    monkeypatch.setattr(module, "npm", lambda: ["npm"])
    return module


Answers = Callable[[Any, Any], tuple[int, str]]


@pytest.fixture
def run_with(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Answers:
    def run(python: Any, npm: Any) -> tuple[int, str]:
        answers = {"pip-audit": {"dependencies": python}, "npm": npm}
        monkeypatch.setattr(check, "ask", lambda command, *_: answers[command[0]])
        code = check.main()
        return code, capsys.readouterr().out

    return run


def test_all_is_well(run_with: Answers) -> None:
    code, out = run_with([RICH, DJANGO], {"vulnerabilities": dict(GROWL)})
    assert code == 0, out
    packages = len(json.loads(PACKAGE_LOCK.read_text())["packages"]) - 1
    assert "known vulnerabilities: 1 Python packages" in out
    assert f"known vulnerabilities: {packages} npm packages" in out


def test_a_vulnerability_is_found(run_with: Answers) -> None:
    bad = {**RICH, "vulns": [{"id": "CVE-2", "fix_versions": []}]}
    code, out = run_with([bad, DJANGO], {"vulnerabilities": GROWL | {"ws": {"severity": "high"}}})
    assert code == 1
    assert "found: rich 15.0.0: CVE-2\nfound: npm ws: high\n" in out
    assert "django" not in out + "growl" not in out


@pytest.mark.parametrize(
    ("python", "npm"),
    [
        # No service: pip-audit skips all, and calls that "No known vulnerabilities found".
        ([{"name": "rich", "skip_reason": "?"}, {"name": "django", "skip_reason": "?"}], {}),
        # A mirror that leaves vulnerabilities out of its answers.
        ([RICH, {**DJANGO, "vulns": []}], {"vulnerabilities": {}}),
        (None, {"message": "405 Method Not Allowed"}),
    ],
)
def test_no_answer_is_not_taken_for_no_vulnerability(
    run_with: Answers, python: Any, npm: Any
) -> None:
    code, out = run_with(python, npm)
    assert code == 3
    assert out.count("not checked: ") == 2
    assert "known vulnerabilities: " not in out


def test_a_package_that_the_service_does_not_know(run_with: Answers) -> None:
    code, out = run_with(
        [RICH, DJANGO, {"name": "own", "skip_reason": "not found"}],
        {"vulnerabilities": dict(GROWL)},
    )
    assert (code, "not checked: own: " in out) == (3, True)


def test_a_program_that_fails_is_no_answer(check: Any) -> None:
    for command in (["false"], ["/nonexistent/npm"], ["echo", "[]"]):
        with pytest.raises(check.UncheckedError):
            check.ask(command, "npm audit")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("GNU Affero General Public License v3", False),
        ("MIT OR (GPL-2.0-only AND MIT)", True),
        ("(MIT)", False),
        ("", False),
    ],
)
def test_licences(check: Any, text: str, allowed: bool) -> None:
    assert check.is_allowed(text) is allowed


def test_a_package_with_another_licence_is_found(
    check: Any, run_with: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dependency of a dependency, as pip installs it."""
    for name, lines in {
        "qctl": ["Provides-Extra: top", "Provides-Extra: dev", "Requires-Dist: a; extra == 'top'"],
        "a": ["License-Expression: MIT", "Requires-Dist: pm2-wrapper>=1"],
        "pm2_wrapper": ["Classifier: License :: OSI Approved :: GNU Affero General Public License"],
    }.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        head = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines]
        (info / "METADATA").write_text("\n".join(head) + "\n\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, out = run_with([RICH, DJANGO], {"vulnerabilities": dict(GROWL)})
    assert code == 1
    assert "pm2-wrapper 1.0 has the licence 'GNU Affero General Public License'" in out
    assert "pm2-wrapper is PM2" in out


def test_a_file_of_an_npm_package_is_found(check: Any, tmp_path: Path) -> None:
    (tmp_path / "node_modules/pm2").mkdir(parents=True)
    (tmp_path / "node_modules/pm2/package.json").touch()
    (tmp_path / "client.mjs").touch()
    assert len(check.check_npm_files(tmp_path)) == 3
    assert check.check_npm_files() == []
