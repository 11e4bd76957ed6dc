"""Holds the rules of the house: a room imports only from rooms below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src/qctl"
FILES = sorted(SRC.rglob("*.py"))
# A file has one subject. This many lines are a sign that it has two.
MAX_LINES = 500

# Of each room its floor: a room imports only from floors below its own.
FLOORS = {
    **dict.fromkeys(("errors", "extras", "grouping", "plurals", "private", "similar"), 0),
    **dict.fromkeys(("connection", "durations"), 1),
    "config": 2,
    **dict.fromkeys(("wire", "manage"), 3),
    **dict.fromkeys(("ops", "runtime"), 4),
    **dict.fromkeys(("output", "demo", "otel", "testing"), 5),
    "cli": 6,
    # Inside the large rooms. What is not named here stands on the ground of its room.
    "wire.read": 1,
    **dict.fromkeys(("wire.write", "wire.schedulers"), 2),
    "wire.checks": 3,
    "ops.processes": 1,
    "ops.queues": 2,
    "ops.jobs": 3,
    **dict.fromkeys(("ops.drain", "ops.metrics"), 4),
    **dict.fromkeys(("ops.impact", "ops.bulk", "ops.schedules", "ops.follow", "ops.live"), 5),
    "ops.doctor": 5,
    "ops.masters": 5,
    "runtime.job": 1,
    "runtime.logs": 2,
    "runtime.handlers": 3,
    "runtime.loop": 4,
    "runtime.api": 5,
    "runtime.processes": 6,
}
# Rooms on lower floors that are closed to a room all the same.
CLOSED = {
    "manage": {"connection"},
    "output": {"connection", "manage"},
}
# Rooms that have no floor: the package itself and `python -m qctl`.
DOORS = {"", "__init__", "__main__", "__version__"}


def room_of(path: Path) -> str:
    first = path.relative_to(SRC).parts[0]
    return first.removesuffix(".py")


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """(module below qctl, imported name or "", line) of each import, in functions too."""
    package = ("qctl", *path.relative_to(SRC).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "qctl":
                    yield alias.name.partition(".")[2], "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).rstrip(".")
            head, _, rest = module.partition(".")
            if head == "qctl":
                for alias in node.names:
                    yield rest or alias.name, alias.name, node.lineno


def dataclasses_in(room: str) -> set[str]:
    """Names of a room's records."""
    return {
        node.name
        for path in (SRC / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


# Of wire/, output/ may know the records and nothing that reads or writes.
WIRE_FOR_OUTPUT = dataclasses_in("wire")


def rooms_of(module: str) -> tuple[str, str]:
    """The room of a module, and the room inside that: "" on the ground of its room."""
    first, _, rest = module.partition(".")
    inner = f"{first}.{rest.partition('.')[0]}"
    return first, inner if inner in FLOORS else ""


def violation(importer: str, module: str, name: str) -> str | None:
    """Why this import is against the rules; None when it is not.

    Args:
        importer, module: below qctl, with dots.
    """
    room, inner = rooms_of(importer)
    target, target_inner = rooms_of(module)
    reason = None
    if target in DOORS:
        reason = None
    elif not {room, target} <= FLOORS.keys():
        reason = f"{room} or {target} has no floor"
    elif target in CLOSED.get(room, ()):
        reason = f"{room} is closed to {target}"
    elif room == "output" and target == "wire" and name not in WIRE_FOR_OUTPUT:
        reason = f"output may know wire's records, and {module}.{name} is not one"
    elif target != room:
        if FLOORS[target] >= FLOORS[room]:
            reason = f"{room} imports {target}, which is not below it"
    elif target_inner != inner and FLOORS.get(target_inner, 0) >= FLOORS.get(inner, 0):
        reason = f"{inner or room} imports {target_inner}, which is not below it"
    return reason


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_down(path: Path) -> None:
    importer = module_of(path)
    if importer in DOORS:
        return
    broken = [
        f"line {line}: {reason}"
        for module, name, line in imports(path)
        if (reason := violation(importer, module, name))
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("importer", "module", "name"),
    [
        ("wire.jobs", "manage.protocol", "Manager"),
        ("wire.jobs", "ops.queues.status", "status"),
        ("wire.keys", "wire.read.lists", "windows"),
        ("wire.read.lists", "wire.write.walk", "walk"),
        ("manage.pm2", "wire.keys", "QueueKeys"),
        ("manage.pm2", "connection.connect", "connect"),
        ("ops.queues.status", "runtime.api.worker", "Worker"),
        ("ops.queues.status", "ops.drain.run", "drain"),
        ("ops.impact.assess", "ops.schedules.listing", "schedules"),
        ("runtime.api.worker", "ops.queues.status", "status"),
        ("runtime.loop.engine", "runtime.api.worker", "Worker"),
        ("ops.queues.status", "output.table", "table"),
        ("output.status", "wire.read.snapshot", "read_snapshots"),
        ("output.status", "connection.connect", "connect"),
        ("output.status", "cli.main", "main"),
        ("cli.main", "utils", "helper"),
    ],
)
def test_the_rule_itself(importer: str, module: str, name: str) -> None:
    assert violation(importer, module, name)


@pytest.mark.parametrize(
    ("importer", "module", "name"),
    [
        ("cli.main", "output.table", "table"),
        ("ops.queues.status", "wire.read.snapshot", "read_snapshots"),
        ("ops.queues.status", "manage.protocol", "Manager"),
        ("ops.impact.assess", "ops.queues.status", "status"),
        ("output.status", "ops.queues.status", "Status"),
        ("output.status", "wire.read.snapshot", "Counts"),
        ("cli.main", "connection.connect", "connect"),
    ],
)
def test_what_the_rule_allows(importer: str, module: str, name: str) -> None:
    assert violation(importer, module, name) is None


def test_no_import_circles() -> None:
    modules = {module_of(path): path for path in FILES}
    graph = {
        module: {
            target
            for base, name, _ in imports(path)
            for target in (f"{base}.{name}", base)
            if target in modules and target != module
        }
        for module, path in modules.items()
    }
    circles = []
    for module, targets in graph.items():
        seen, ahead = set(), list(targets)
        while ahead:
            if (step := ahead.pop()) not in seen:
                seen.add(step)
                ahead += graph[step]
        if module in seen:
            circles.append(module)
    assert not circles


def test_files_are_short_and_named_for_something() -> None:
    assert len(FILES) > 10, f"no sources found in {SRC}"
    too_long = {
        str(path.relative_to(SRC)): length
        for path in FILES
        if (length := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not too_long
    assert not [path for path in FILES if path.stem in {"utils", "util", "helpers", "common"}]


# Pieces of text that only a composed key holds.
KEY_PARTS = (
    *(":wait", ":active", ":paused", ":meta", ":delayed", ":prioritized", ":completed"),
    *(":failed", ":events", ":marker", ":stalled", ":limiter", ":repeat", ":lock", ":logs"),
    *("qctl:lease", "qctl:paused", "qctl:drains"),
)


def string_parts(path: Path) -> Iterator[tuple[str, int]]:
    """The text in strings and f-strings that are not docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.value, node.lineno


def test_only_wire_composes_keys() -> None:
    found = [
        f"{path.relative_to(SRC)}:{line}: {text!r}"
        for path in FILES
        if room_of(path) != "wire"
        for text, line in string_parts(path)
        # A sentence may mention a key; a key has no blanks.
        if " " not in text and any(part in text for part in KEY_PARTS)
    ]
    assert not found, "\n".join(found)


HEAVY = {
    *("asyncio", "redis", "textual", "pydantic", "prometheus_client", "mcp"),
    *("qctl.runtime", "qctl.connection.embedded"),
}
IMPORT_CHECK = """
import sys
before = set(sys.modules)
{statement}
print("\\n".join(sorted(set(sys.modules) - before)))
"""


def modules_after(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_CHECK.format(statement=statement)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["qctl", "qctl.ops.queues.status", "qctl.cli.main", "qctl.cli.status"]
)
def test_status_loads_nothing_heavy(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert not loaded & HEAVY


def test_status_run_loads_nothing_heavy(redis_url: str) -> None:
    statement = (
        "from qctl.cli.main import main\n"
        f"sys.argv = ['qctl', 'queues', '--redis', {redis_url!r}, '--json']\n"
        "try:\n    sys.stdout, out = sys.stderr, sys.stdout\n    main()\n"
        "except SystemExit:\n    pass\n"
        "finally:\n    sys.stdout = out"
    )
    loaded = modules_after(statement)
    assert "qctl.wire.read.discovery" in loaded
    assert not loaded & HEAVY


def test_no_test_imports_from_a_test_file() -> None:
    """What several of them use is in tests/labs/."""
    tests = Path(__file__).parent
    found = [
        f"{path.relative_to(tests)}:{node.lineno}: {node.module}"
        for path in tests.rglob("*.py")
        if "node_modules" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and any(
            part.startswith("test_")
            for name in (node.module or "", *(alias.name for alias in node.names))
            for part in name.split(".")
            if (node.module or "").startswith("tests")
        )
    ]
    assert not found, "\n".join(found)
