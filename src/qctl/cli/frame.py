"""What every command shares: its options, and how it gets its environment.

A command module has a ``Typer`` made by ``new_app`` and functions decorated twice::

    app = new_app()

    @app.command("pause")
    @with_environment
    def pause(env: Environment, queues: Queues) -> None:
        \"\"\"Stop workers from taking jobs.\"\"\"
        _, client = env.redis()
        ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from qctl.cli.candidates import contexts, prefixes
from qctl.cli.environment import OutputMode, make_environment
from qctl.cli.guard import guard_write
from qctl.cli.help import App, Command, Group
from qctl.cli.streams import Streams
from qctl.ops.processes.suggest import commands_like


def new_app(help_text: str = "") -> typer.Typer:
    """An empty set of commands with qctl's conventions: plain help that begins with examples."""
    return App(
        cls=Group,
        help=help_text or None,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def optional_value(flag: str, default: str) -> type[Command]:
    """A command class in which ``flag`` may stand alone and then means ``flag default``.

    The word after it is its value only if it starts with a digit, so that an argument may follow.
    """

    class OptionalValueCommand(Command):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            for index in range(end - 1, -1, -1):
                following = args[index + 1 : end][:1]
                if args[index] == flag and not (following and following[0][:1].isdigit()):
                    args.insert(index + 1, default)
            return super().parse_args(ctx, args)

    return OptionalValueCommand


Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="Redis  [env: QCTL_REDIS_URL, else REDIS_URL]"),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        metavar="PFX",
        help="BullMQ's key prefix  [env: QCTL_PREFIX]",
        autocompletion=prefixes,
    ),
]
ContextName = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="A context of the config files  [env: QCTL_CONTEXT]",
        autocompletion=contexts,
    ),
]
Output = Annotated[
    OutputMode | None, typer.Option("--output", help="Output format  [env: QCTL_OUTPUT]")
]
Json = Annotated[bool, typer.Option("--json", help="Same as --output json")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours  [env: NO_COLOR]")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks  [env: QCTL_DEBUG]")]

_COMMON: dict[str, tuple[Any, Any]] = {
    "redis_url": (Redis, None),
    "prefix": (Prefix, None),
    "context": (ContextName, None),
    "output": (Output, None),
    "as_json": (Json, False),
    "no_color": (NoColor, False),
    "debug": (Debug, False),
}
# Of every command that writes, which is every one with --dry-run.
_CONFIRM = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The context's name, if it asks for it"),
]
_REQUIRED = inspect.Parameter.empty
COMMON_FLAGS = ("--redis", "--prefix", "--context", "--output", "--json", "--no-color", "--debug")


def with_environment(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options, and an ``Environment`` as its first parameter.

    A parameter whose type is a dataclass stands for one option a field, so that commands can share
    options. A command with a ``dry_run`` writes: the context's ``read_only`` and ``confirm`` apply.
    """
    declared = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    groups: dict[str, Any] = {p.name: p.annotation for p in declared if is_dataclass(p.annotation)}
    own: list[inspect.Parameter] = []
    for parameter in declared:
        if parameter.name in groups:
            own += _fields_as_parameters(parameter.annotation)
        else:
            own.append(_keyword(parameter.name, parameter.annotation, parameter.default))
    writes = any(parameter.name == "dry_run" for parameter in own)
    if writes:
        own.append(_keyword("confirmed", _CONFIRM, None))
    common = [_keyword(name, *option) for name, option in _COMMON.items()]
    parameters = [_keyword("typer_context", typer.Context), *own, *common]

    def command(typer_context: typer.Context, **arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in _COMMON}
        confirmed = arguments.pop("confirmed", None)
        dry_run = arguments.get("dry_run")
        for name, group in groups.items():
            values = {field.name: arguments.pop(field.name) for field in fields(group)}
            arguments[name] = group(**values)
        streams = typer_context.obj
        if not isinstance(streams, Streams):
            streams = Streams.standard()
        env = make_environment(streams, **options)
        for warning in env.settings.warnings:
            env.note(warning)
        try:
            with commands_like(env.settings):
                if writes:
                    guard_write(env, confirmed, dry_run=bool(dry_run))
                function(env, **arguments)
        finally:
            env.close()

    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__module__ = function.__module__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _keyword(name: str, annotation: Any, default: Any = _REQUIRED) -> inspect.Parameter:
    # Keyword-only, because such a parameter may follow one with a default and have none itself.
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _fields_as_parameters(group: Any) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    return [
        _keyword(
            field.name,
            types[field.name],
            _REQUIRED if field.default is MISSING else field.default,
        )
        for field in fields(group)
    ]
