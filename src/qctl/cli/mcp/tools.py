"""The table of tools, and what each takes: the parameters of its command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qctl.cli.options import COMMON_FLAGS
from qctl.cli.program import load_command, writes
from qctl.errors import ExitStatus, UsageError

# The highest ``limit`` that a tool accepts if it only reads.
MAX_LIMIT = 1000
# Options that no tool has. The server itself passes --dry-run, --yes and --confirm. The person who
# starts the server chooses where qctl connects. With --follow or --watch, a command would not end.
# The options in the last line are for a drain's COMMAND after ``--``, which no tool can run.
_NEVER = {
    *COMMON_FLAGS,
    *("--dry-run", "--yes", "--no-count", "--confirm", "--kube-context", "--follow", "--watch"),
    *("--command-timeout", "--ready-timeout", "--expect-workers", "--no-expect"),
}
_TYPES = {
    "boolean": "boolean",
    "integer": "integer",
    "integer range": "integer",
    "float": "number",
    "float range": "number",
}
_CONFIRM = {
    "type": "boolean",
    "default": False,
    "description": "Carry out the plan that the last call with the same arguments returned",
}


@dataclass(frozen=True)
class Tool:
    """A tool, which is one command.

    Args:
        path: the words of the command, without ``qctl``.
        idempotent: whether a second call with the same arguments changes nothing more.
        finds: exit codes other than 0 that are results, not failures.
    """

    path: str
    idempotent: bool = False
    finds: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """The name for clients, such as ``jobs_list``."""
        return self.path.replace(" ", "_").replace("-", "_")

    @cached_property
    def command(self) -> Any:
        """The command, as typer builds it."""
        first, _, second = self.path.partition(" ")
        command: Any = load_command(first)
        return command.commands[second] if second else command

    @property
    def writes(self) -> bool:
        """Whether the command changes queues."""
        return writes(self.command)

    @property
    def description(self) -> str:
        """The command's help."""
        text = "\n\n".join(" ".join(part.split()) for part in self.command.help.split("\n\n"))
        if hasattr(self.command, "commands"):
            text += "\n\nThis tool is the command alone, without its subcommands."
        if not self.writes:
            return text
        return (
            f"{text}\n\nThe first call only returns the plan (a dry run). To carry the plan out, "
            "call again with the same arguments and confirm: true."
        )

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        properties = {name: self._property(each) for name, each in self._parameters.items()}
        if self.writes:
            properties["confirm"] = _CONFIRM
        return {
            "type": "object",
            "properties": properties,
            "required": [name for name, each in self._parameters.items() if each.required],
            "additionalProperties": False,
        }

    def words(self, arguments: Mapping[str, Any]) -> list[str]:
        """The command as typed, without ``qctl``.

        Args:
            arguments: parameter name → value. They must fit the schema.

        Raises:
            UsageError: a name begins with a dash.
        """
        words = self.path.split()
        for name, parameter in self._parameters.items():
            if (value := arguments.get(name)) is None:
                continue
            values = value if isinstance(value, list) else [value]
            if parameter.param_type_name == "argument":
                words += [_plain(name, each) for each in values]
            elif not isinstance(value, bool):
                words += [f"{_flag(parameter)}={_text(each)}" for each in values]
            elif value:
                words.append(_flag(parameter))
            else:
                words += parameter.secondary_opts
        return words

    @cached_property
    def _parameters(self) -> dict[str, Any]:
        return {
            _name(parameter): parameter
            for parameter in self.command.params
            if not set(parameter.opts) & _NEVER
        }

    def _property(self, parameter: Any) -> dict[str, Any]:
        return {**self._value(parameter), "description": parameter.help}

    def _value(self, parameter: Any) -> dict[str, Any]:
        kind = parameter.type
        item: dict[str, Any] = {"type": _TYPES.get(kind.name, "string")}
        if choices := getattr(kind, "choices", None):
            item["enum"] = [*choices]
        if (least := getattr(kind, "min", None)) is not None:
            item["minimum"] = least
        most = getattr(kind, "max", None)
        if parameter.name == "limit" and not self.writes:
            most = MAX_LIMIT
        if most is not None:
            item["maximum"] = most
        if parameter.nargs == -1 or getattr(parameter, "multiple", False):
            return {"type": "array", "items": item}
        return item if parameter.default is None else {**item, "default": parameter.default}


TOOLS = (
    Tool("status"),
    Tool("queues"),
    Tool("workers"),
    Tool("jobs list"),
    Tool("jobs show"),
    Tool("jobs failures"),
    Tool("jobs tree"),
    Tool("impact"),
    # Exit code 1 means that there are problems.
    Tool("doctor", finds=frozenset({ExitStatus.FAILED})),
    Tool("schedules list"),
    Tool("schedules show"),
    Tool("events"),
    Tool("jobs retry-stalled"),
    Tool("jobs retry-failed"),
    Tool("pause", idempotent=True),
    Tool("resume", idempotent=True),
    Tool("drain"),
    Tool("restart"),
)


def _flag(parameter: Any) -> str:
    return str(max(parameter.opts, key=len))


def _name(parameter: Any) -> str:
    """``max_unavailable`` for ``--max-unavailable``, and ``queues`` for ``[QUEUE]...``."""
    if parameter.param_type_name == "option":
        return _flag(parameter).removeprefix("--").replace("-", "_")
    word = str(parameter.metavar).strip("[].").lower()
    return f"{word}s" if parameter.nargs == -1 else word


def _plain(name: str, value: str) -> str:
    # A ``--`` before the name cannot protect it: a drain would take the name for its COMMAND.
    if value.startswith("-"):
        raise UsageError(
            f"{name}: {value!r} begins with a dash",
            why="this server takes no names that could be read as options",
            hint="use the command line: a name may follow a --",
        )
    return value


def _text(value: Any) -> str:
    # JSON has one kind of number: 5.0 is 5.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
