"""The tables of ``qctl config`` and ``qctl contexts``."""

from __future__ import annotations

from collections.abc import Sequence

from qctl.ops.settings import ConfigFile, Context, Setting
from qctl.output.console import Cell, Column, Value

_SETTING_COLUMNS = (
    Column("SETTING"),
    Column("VALUE", keep_end=True),
    Column("FROM", keep_end=True),
)
_CONTEXT_COLUMNS = (
    Column("CHOSEN"),
    Column("CONTEXT"),
    Column("REDIS", keep_end=True),
    Column("PREFIX"),
    Column("GUARDS"),
)
_FILE_COLUMNS = (Column("FILE"), Column("PATH", keep_end=True), Column("EXISTS"))

Table = tuple[Sequence[Column], list[list[Value]]]


def settings_table(settings: Sequence[Setting]) -> Table:
    """Columns and rows for ``console.table``."""
    return _SETTING_COLUMNS, [
        [
            Cell(setting.name, "bold"),
            _word(setting.value),
            Cell(str(setting.origin), "dim" if setting.origin.kind == "default" else ""),
        ]
        for setting in settings
    ]


def contexts_table(contexts: Sequence[Context]) -> Table:
    """Columns and rows for ``console.table``."""
    rows: list[list[Value]] = []
    for context in contexts:
        mark = "*" if context.chosen else ""
        name = Cell(context.name, "bold")
        if context.error is not None:
            rows.append([mark, name, Cell(f"({context.error})", "red"), None, None])
            continue
        guards = [
            word
            for word, holds in (("read-only", context.read_only), ("confirm", context.confirm))
            if holds
        ]
        rows.append([mark, name, context.redis_url, context.prefix, ", ".join(guards) or None])
    return _CONTEXT_COLUMNS, rows


def files_table(files: Sequence[ConfigFile]) -> Table:
    """Columns and rows for ``console.table``."""
    return _FILE_COLUMNS, [[file.kind, str(file.path), _word(file.exists)] for file in files]


def _word(value: str | int | bool | None) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)
