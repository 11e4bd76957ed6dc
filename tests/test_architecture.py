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
MAX_LINES = 400

GROUND = {
    *("errors", "extras", "config", "config_files", "config_guards", "passwords", "places"),
    *("connect", "resp", "sentinel", "cluster", "moving", "embedded", "similar"),
}
FLOORS = {
    **dict.fromkeys(GROUND, 0),
    "wire": 1,
    "manage": 2,
    "ops": 3,
    "runtime": 3,
    "output": 4,
    "demo": 4,
    "cli": 4,
    "testing": 4,
}
# Rooms on lower floors that are closed to a room all the same.
CLOSED = {
    "manage": {"wire", "connect", "resp", "sentinel", "cluster", "embedded"},
    "output": {"connect", "resp", "sentinel", "cluster", "embedded", "manage"},
}
# Rooms that have no floor: the package itself and `python -m qctl`.
DOORS = {"__init__", "__main__"}


def room_of(path: Path) -> str:
    first = path.relative_to(SRC).parts[0]
    return first.removesuffix(".py")


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


def violation(room: str, module: str, name: str) -> str | None:
    """Why this import is against the rules; None when it is not."""
    target = module.partition(".")[0]
    ground = room in GROUND and target in GROUND
    reason = None
    beside = room == "cli" and target in {"output", "demo"}
    if target == room or target.startswith("__") or ground or beside:
        reason = None
    elif target not in FLOORS:
        reason = f"qctl.{target} has no floor in docs/architecture.md"
    elif target in CLOSED.get(room, ()):
        reason = f"{room} is closed to {target}"
    elif room == "output" and target == "wire" and name not in WIRE_FOR_OUTPUT:
        reason = f"output may know wire's records, and {module}.{name} is none"
    elif FLOORS[target] >= FLOORS[room]:
        reason = f"{room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[target]})"
    return reason


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room in DOORS:
        return
    assert room in FLOORS, f"{room} has no floor"
    broken = [
        f"line {line}: {reason}"
        for module, name, line in imports(path)
        if (reason := violation(room, module, name))
    ]
    assert not broken, "\n".join(broken)


def test_ground_floor_order() -> None:
    ground_imports = {
        module
        for name in ("errors", "config", "config_files", "config_guards", "passwords", "places")
        for module, _, _ in imports(SRC / f"{name}.py")
    }
    assert ground_imports <= {
        *("errors", "config_files", "config_guards", "passwords", "places", "connect"),
    }


@pytest.mark.parametrize(
    ("room", "module", "name"),
    [
        ("wire", "manage.protocol", "Manager"),
        ("wire", "ops.queues.status", "status"),
        ("manage", "wire.keys", "QueueKeys"),
        ("manage", "connect", "connect"),
        ("ops", "runtime.api.worker", "Worker"),
        ("runtime", "ops.queues.status", "status"),
        ("ops", "output.table", "table"),
        ("output", "wire.read.snapshot", "read_snapshots"),
        ("output", "connect", "connect"),
        ("output", "cli.main", "main"),
        ("cli", "utils", "helper"),
    ],
)
def test_the_rule_itself(room: str, module: str, name: str) -> None:
    assert violation(room, module, name)


@pytest.mark.parametrize(
    ("room", "module", "name"),
    [
        ("cli", "output.table", "table"),
        ("ops", "wire.read.snapshot", "read_snapshots"),
        ("ops", "manage.protocol", "Manager"),
        ("output", "ops.queues.status", "Status"),
        ("output", "wire.read.snapshot", "Counts"),
        ("cli", "connect", "connect"),
    ],
)
def test_what_the_rule_allows(room: str, module: str, name: str) -> None:
    assert violation(room, module, name) is None


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
    *("asyncio", "redis", "textual", "pydantic", "prometheus_client"),
    *("qctl.runtime", "qctl.embedded"),
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
