"""Turns functions into commands: adds the common options, and passes an ``Environment``.

Each module of commands has an ``App`` and registers its functions there::

    app = App()

    @app.command("pause")
    def pause(env: Environment, queues: Queues) -> None:
        \"\"\"Stop workers from taking jobs.\"\"\"
        _, client = env.redis()
        ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import typer

# Typer's own copy of click; a later version of typer might move it, so typer is pinned.
from typer import _click as click
from typer._click.globals import get_current_context
from typer.main import get_command_from_info, get_params_convertors_ctx_param_name_from_function
from typer.models import CommandFunctionType, CommandInfo

from qctl.cli.environment import Environment
from qctl.cli.guard import guard_write
from qctl.cli.help import CONTEXT_SETTINGS, Command, Group
from qctl.cli.options import CommonOptions, Confirmed, KubeContext, Queue, UnusedYes
from qctl.ops.processes.suggest import commands_like

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class App:
    """The commands of a module."""

    def __init__(self) -> None:
        self._commands: dict[str, CommandInfo] = {}
        self._alone: CommandInfo | None = None

    def alone(self, function: CommandFunctionType) -> CommandFunctionType:
        """Register the function that runs if the group is typed without one of its commands."""
        self._alone = CommandInfo(cls=Command, callback=_with_environment(function))
        return function

    def command(
        self,
        name: str,
        *,
        cls: type[Command] = Command,
        bare: bool = False,
        takes_yes: bool = False,
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a function whose first parameter is an ``Environment``.

        A ``bare`` function takes no ``Environment``, and its command has no common options. With
        ``takes_yes``, the command accepts ``--yes`` although it never asks a question.
        """

        def register(function: CommandFunctionType) -> CommandFunctionType:
            callback = function if bare else _with_environment(function, takes_yes=takes_yes)
            self._commands[name] = CommandInfo(
                name, cls=cls, context_settings=CONTEXT_SETTINGS, callback=callback
            )
            return function

        return register

    def build(self, name: str, line: str) -> click.Command:
        """The command ``name``; if there is none, a group of all commands of this module.

        Args:
            line: the group's help, unless a function is registered with ``alone``.
        """
        if name in self._commands:
            return _build(self._commands[name])
        commands = {each: _build(info) for each, info in self._commands.items()}
        if self._alone is not None:
            return _group_alone(name, commands, _build(self._alone))
        return Group(
            name=name,
            help=line,
            commands=commands,
            params=common_params(),
            rich_markup_mode=None,
            context_settings=CONTEXT_SETTINGS,
        )


def _build(info: CommandInfo) -> click.Command:
    return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)


def _group_alone(name: str, commands: dict[str, click.Command], alone: click.Command) -> Group:
    """A group that runs ``alone`` if it is typed without one of its commands."""

    def run(**values: Any) -> None:
        if get_current_context().invoked_subcommand is None and alone.callback is not None:
            alone.callback(**values)

    return Group(
        name=name,
        help=alone.help,
        commands=commands,
        params=alone.params,
        callback=run,
        invoke_without_command=True,
        subcommand_metavar="[COMMAND]",
        rich_markup_mode=None,
        context_settings=CONTEXT_SETTINGS,
    )


def common_params() -> list[click.Parameter]:
    """The common options as parameters of a group, since they may also stand before a command."""

    def declare(**_: object) -> None:
        pass

    signature = inspect.signature(CommonOptions, eval_str=True)
    parameters = [p.replace(kind=_KEYWORD) for p in signature.parameters.values()]
    declare.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=inspect.Signature.empty
    )
    declare.__annotations__ = {p.name: p.annotation for p in parameters}
    params, _, _ = get_params_convertors_ctx_param_name_from_function(declare)
    return list(params)


def _with_environment(
    function: Callable[..., None], *, takes_yes: bool = False
) -> Callable[..., None]:
    """Add the common options, and pass an ``Environment`` as the first argument.

    Every field of a parameter whose type is a dataclass becomes an option, so that commands can
    share options. A command with a parameter ``dry_run`` writes, so ``guard_write`` applies to it.
    Such a command also accepts ``--yes``, even if it asks no question, so that scripts can give
    ``--yes`` to every command that writes. A command with a parameter ``target`` also has
    ``--kube-context``.
    """
    declared = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    groups = {p.name: p.annotation for p in declared if is_dataclass(p.annotation)}
    own = [option for parameter in declared for option in _options_of(parameter)]
    # The name of the parameter for the queue, if the command works on one queue. Before such a
    # command runs, ``_choose_queue`` finds the queue's prefix and limits the settings to it.
    one_queue = next((p.name for p in own if p.annotation == Queue), "")
    writes = any(parameter.name == "dry_run" for parameter in own)
    if writes:
        own.append(inspect.Parameter("confirmed", _KEYWORD, default=None, annotation=Confirmed))
    if any(parameter.name == "target" for parameter in own):
        own.append(
            inspect.Parameter("kube_context", _KEYWORD, default=None, annotation=KubeContext)
        )
    has_unused_yes = (writes or takes_yes) and not any(p.name == "yes" for p in own)
    if has_unused_yes:
        own.append(inspect.Parameter("yes", _KEYWORD, default=False, annotation=UnusedYes))
    context = inspect.Parameter("typer_context", _KEYWORD, annotation=typer.Context)
    common = inspect.Parameter("common", _KEYWORD, annotation=CommonOptions)
    # Keyword-only, because an option without a default may follow one with a default.
    parameters = [p.replace(kind=_KEYWORD) for p in (context, *own, *_options_of(common))]

    def command(
        typer_context: typer.Context,
        confirmed: str | None = None,
        kube_context: str | None = None,
        **arguments: Any,
    ) -> None:
        dry_run = bool(arguments.get("dry_run"))

        def collect(group: Any) -> Any:
            return group(**{field.name: arguments.pop(field.name) for field in fields(group)})

        if has_unused_yes:
            del arguments["yes"]
        options = _including_earlier(typer_context, collect(CommonOptions))
        env = Environment(typer_context.obj, options, kube_context)
        for name, group in groups.items():
            arguments[name] = collect(group)
        env.note(*env.settings.warnings)
        try:
            # In this block, messages recommend commands with the connection flags of this command.
            with commands_like(env.settings):
                if writes:
                    guard_write(env, confirmed, dry_run=dry_run)
                if one_queue in arguments:
                    arguments[one_queue] = _choose_queue(env, arguments, one_queue)
                function(env, **arguments)
        finally:
            env.close()

    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__module__ = function.__module__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _including_earlier(ctx: typer.Context, options: CommonOptions) -> CommonOptions:
    """The options typed after a command, plus the options typed before the command or its group.

    Raises:
        UsageError: an option has two different values.
    """
    parent = ctx.parent
    while parent is not None:
        earlier: dict[str, Any] = {
            field.name: parent.params.get(field.name) for field in fields(CommonOptions)
        }
        options = options.following(CommonOptions(**earlier), ctx.command_path)
        parent = parent.parent
    return options


def _choose_queue(env: Environment, arguments: Mapping[str, Any], parameter: str) -> str:
    """The name of the queue that was typed. Also limits the settings to the queue's prefix."""
    word: str = arguments[parameter]
    if env.settings.prefixes.single is None or "@" in word:
        from qctl.ops.queues.select import select_one  # noqa: PLC0415 - rarely needed

        _, client = env.redis()
        may_create = bool(arguments.get("create"))
        keys = select_one(client, env.settings.prefixes, word, may_create=may_create)
        env.settings = env.settings.under(keys.prefix)
        return keys.name
    return word


def _options_of(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    group = parameter.annotation
    if isinstance(group, type) and is_dataclass(group):
        return list(inspect.signature(group, eval_str=True).parameters.values())
    return [parameter]
