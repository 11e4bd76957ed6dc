"""Docker as a process manager: finds containers that hold workers, and restarts single ones.

Everything goes through the ``docker`` command, which knows contexts, DOCKER_HOST, TLS and SSH.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from qctl.errors import ManagerUnreachableError, NotFoundError, RefusedError
from qctl.manage.docker.cgroups import container_ids
from qctl.manage.docker.rows import COMPOSE, TEMPLATE, Container, target_of, to_container
from qctl.manage.missing import no_such_target
from qctl.manage.protocol import ManagedProcess, RestartCall
from qctl.manage.tool import DetachedCall, ToolFailedError, run_tool

TIMEOUT_S = 10.0
_MIN_ID = 6
_LOG_LINES = 200
_LISTED = ("project", "service", "oneoff")
_LIST_TEMPLATE = "\t".join(
    ["{{.ID}}", "{{.Names}}", *(f'{{{{.Label "{COMPOSE}{x}"}}}}' for x in _LISTED)]
)
# The number of attempts to list and inspect: each fails if a listed container is removed before
# its inspection.
_ATTEMPTS = 5


class Docker:
    """The engine that the ``docker`` command reaches.

    Args:
        timeout_s: how long to wait for an answer.
    """

    kind = "docker"

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        # The last call of ``begin_exit`` for each container, by the container's name.
        self._exits: dict[str, DetachedCall] = {}

    def processes(self) -> Sequence[ManagedProcess]:
        """See ``Manager``; all containers, also those that do not run."""
        return [each.process for each in self._containers("--all")]

    def process(self, key: str) -> ManagedProcess | None:
        """See ``Restarter``; the key is the container's name."""
        exit_call = self._exits.get(key)
        # Read this before the inspection. Otherwise, if the inspection found the container stopped,
        # and the call then started it and ended, the container would seem to stay stopped.
        is_exiting = exit_call is not None and exit_call.is_running
        try:
            found = self._inspect([key])
        except ToolFailedError:
            if any(each.name == key for each in self._list("--all")):
                raise
            return None
        process = next((each.process for each in found if each.process.key == key), None)
        if process is not None and is_exiting and process.status == "stopped":
            return replace(process, status="launching")
        return process

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """The container with this name or id, or all containers of the Compose service.

        Args:
            name: a name, the beginning of an id (6 digits or more), or ``PROJECT/SERVICE``.
        """
        ids = _chosen(self._list("--all"), name)
        found = sorted(self._inspect(ids), key=lambda each: (each.number, each.process.key))
        if "/" in name:
            return [each.process for each in found]
        return [replace(each.process, target=f"docker:{each.process.name}") for each in found]

    def targets(self) -> Sequence[str]:
        """See ``Manager``."""
        return _targets(self._list("--all"))

    def holding(self, pids: Collection[int], hosts: Collection[str]) -> Sequence[ManagedProcess]:
        """See ``Locator``. Asks Docker only if a pid or an address may belong to a container."""
        ids = {each for pid in pids for each in container_ids(pid)}
        addresses = {host for host in hosts if host != "::1" and not host.startswith("127.")}
        if not ids and not addresses:
            return []
        # Without addresses to compare, inspect only the containers with these ids.
        found = self._containers(only=None if addresses else ids)
        return [
            each.process
            for each in found
            if each.id in ids or not addresses.isdisjoint(each.process.addresses)
        ]

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """See ``Restarter``; Docker waits for the container's own stop timeout before SIGKILL.

        The command is detached: if the client of a restart disconnects, some engines abort the
        restart, and leave the container stopped.
        """
        return DetachedCall(["docker", "restart", process.key])

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """See ``Signaller``; Docker starts the container again, whatever its restart policy is."""
        call = DetachedCall(["docker", "restart", "-t", "-1", process.key])
        self._exits[process.key] = call
        return call

    def why_not_rollable(self, process: ManagedProcess) -> str:
        """See ``Signaller``."""
        return process.signal_trouble

    def log_since(self, process: ManagedProcess, since_s: float) -> list[str]:
        """See ``LogSource``; at most 200 lines, of stdout and stderr."""
        options = ["--since", f"{since_s:.3f}", "--tail", str(_LOG_LINES)]
        return self._docker("logs", *options, process.key, with_stderr=True).splitlines()

    def _containers(self, *options: str, only: Collection[str] | None = None) -> list[Container]:
        """The containers that ``docker ps`` lists, sorted by their targets.

        Args:
            only: the ids to inspect; None for all.
        """
        for _ in range(_ATTEMPTS):
            ids = [each.id for each in self._list(*options) if only is None or each.id in only]
            try:
                found = self._inspect(ids)
            except ToolFailedError as error:
                failure = error
            else:
                return sorted(found, key=lambda each: (each.process.target, each.number))
        raise failure

    def _inspect(self, ids: Sequence[str]) -> list[Container]:
        """The containers with these ids or names.

        Raises:
            ToolFailedError: docker failed, for example because there is no such container.
        """
        if not ids:
            return []
        words = ["--type", "container", "--format", TEMPLATE, "--", *ids]
        try:
            return [to_container(line) for line in self._docker("inspect", *words).splitlines()]
        except ValueError as error:
            why, hint = str(error), "see `docker version`; qctl knows Docker 20.10 and newer"
        raise ManagerUnreachableError("Docker's answer is not understood", why=why, hint=hint)

    def _list(self, *options: str) -> list[_Listed]:
        words = ["--no-trunc", "--format", _LIST_TEMPLATE, *options]
        rows = [line.split("\t") for line in self._docker("ps", *words).splitlines()]
        return [_listed(row) for row in rows if len(row) == len(_LISTED) + 2]

    def _docker(self, *words: str, with_stderr: bool = False) -> str:
        try:
            return run_tool(["docker", *words], timeout_s=self._timeout_s, with_stderr=with_stderr)
        except ManagerUnreachableError as error:
            error.hint = "see whether `docker ps` works for this user"
            raise


@dataclass(frozen=True, slots=True)
class _Listed:
    """A container in ``docker ps``; ``target`` as in ``ManagedProcess``."""

    id: str
    name: str
    target: str


def _listed(row: Sequence[str]) -> _Listed:
    identity, names, project, service, oneoff = row
    # If other containers link to this one, it has further names, which contain a slash.
    name = next((each for each in names.split(",") if "/" not in each), names)
    if not service or oneoff.lower() == "true":
        project = service = ""
    return _Listed(identity, name, target_of(name, project, service))


def _targets(containers: Sequence[_Listed]) -> list[str]:
    return list(dict.fromkeys(each.target for each in containers))


def _chosen(containers: Sequence[_Listed], name: str) -> list[str]:
    """The ids of the containers that ``name`` means; see ``Docker.find``."""
    if "/" in name:
        if service := [each.id for each in containers if each.target == f"docker:{name}"]:
            return service
    elif named := [each.id for each in containers if each.name == name]:
        return named
    elif len(name) >= _MIN_ID and set(name) <= set("0123456789abcdef"):
        by_id = [each for each in containers if each.id.startswith(name)]
        if len(by_id) > 1:
            raise RefusedError(
                f"several containers have an id that begins with {name}",
                why=", ".join(f"{each.name} ({each.id[:12]})" for each in by_id),
                hint=f"name one: docker:{by_id[0].name}",
            )
        if by_id:
            return [by_id[0].id]
    raise _not_found(containers, name)


def _not_found(containers: Sequence[_Listed], name: str) -> NotFoundError:
    what = (
        f"Docker has no Compose service {name}"
        if "/" in name
        else f"Docker has no container {name}"
    )
    targets = _targets(containers)
    if not targets:
        return NotFoundError(
            what,
            why="Docker has no container at all",
            hint="see `docker context ls`: the containers may be under another context",
        )
    return no_such_target(what, f"docker:{name}", targets)
