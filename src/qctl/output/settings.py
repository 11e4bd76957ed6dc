"""The tables of ``qctl config`` and ``qctl contexts``."""

from __future__ import annotations

from qctl.ops.settings import ConfigFile, Context, Setting
from qctl.output.console import Cell, Column, Value


def _word(value: str | int | bool | None) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)


def _origin(setting: Setting) -> Cell:
    return Cell(str(setting.origin), "dim" if setting.origin.kind == "default" else "")


def _redis(context: Context) -> Value:
    return context.redis_url if context.error is None else Cell(f"({context.error})", "red")


def _guards(context: Context) -> Value:
    guards = (("read-only", context.read_only), ("confirm", context.confirm))
    return ", ".join(word for word, is_set in guards if is_set) or None


SETTINGS: tuple[Column[Setting], ...] = (
    Column("SETTING", lambda s: Cell(s.name, "bold")),
    Column("VALUE", lambda s: _word(s.value), keep_end=True),
    Column("FROM", _origin, keep_end=True),
)
CONTEXTS: tuple[Column[Context], ...] = (
    Column("CHOSEN", lambda c: "*" if c.chosen else ""),
    Column("CONTEXT", lambda c: Cell(c.name, "bold")),
    Column("REDIS", _redis, keep_end=True),
    Column("PREFIX", lambda c: c.prefix),
    Column("GUARDS", _guards),
)
FILES: tuple[Column[ConfigFile], ...] = (
    Column("FILE", lambda f: f.kind),
    Column("PATH", lambda f: str(f.path), keep_end=True),
    Column("EXISTS", lambda f: _word(f.exists)),
)
