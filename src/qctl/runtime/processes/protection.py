"""Asks the platform not to end this task or pod while workers have jobs (``--protect``).

The master begins the protection when a job starts, and ends the protection when no job has run for
a while. It does not send a request for each job. An endpoint that fails is logged once, and stops
no job.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError

from qctl.errors import UsageError
from qctl.runtime.logs import Log
from qctl.wire.replies import read_object

KINDS = ("ecs", "kubernetes")
# The protection ends when no job has run for this time. Not at once, because Kubernetes asks not to
# change the annotation often, and ECS limits the rate of calls.
HOLD_S = 30.0
# After a failure, how long to wait before the next try.
RETRY_S = 10.0
_TICK_S = 0.5
# The timeout of a request. It is short, because a stop sends a last request, and the platform
# limits the time of a stop.
_TIMEOUT_S = 2.0
_MAX_REPLY_BYTES = 10_000
# ECS ends a protection after this time, if the master has neither ended nor renewed it.
_ECS_EXPIRES_MIN = 60
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_BUSY_COST = "1000"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Protection(Protocol):
    """A platform's protection of the task or pod that this process is in."""

    @property
    def renew_s(self) -> float | None:
        """How many seconds to wait between repeated calls of ``set(True)``; None for no repeat."""
        ...

    def set(self, busy: bool) -> None:
        """Begin or end the protection. Blocks for some seconds at most.

        Raises:
            OSError, ValueError: the platform cannot be reached, or refuses.
        """
        ...


@dataclass(frozen=True, slots=True)
class EcsProtection:
    """Task scale-in protection, by the ECS agent's endpoint in the task.

    The task's role needs ``ecs:UpdateTaskProtection``, and the task must belong to a service.
    """

    agent_uri: str
    renew_s: float | None = _ECS_EXPIRES_MIN * 60 / 2

    def set(self, busy: bool) -> None:
        """See ``Protection.set``."""
        body: dict[str, Any] = {"ProtectionEnabled": busy}
        if busy:
            body["ExpiresInMinutes"] = _ECS_EXPIRES_MIN
        url = f"{self.agent_uri.rstrip('/')}/task-protection/v1/state"
        reply = _request("PUT", url, body, {"Content-Type": "application/json"})
        # The agent reports a refusal as {"failure": …} or {"error": …}.
        protection = read_object(reply.decode(errors="replace")).get("protection")
        if not isinstance(protection, dict) or protection.get("ProtectionEnabled") is not busy:
            raise ValueError(f"the ECS agent answered {reply[:300].decode(errors='replace')}")


@dataclass(frozen=True, slots=True)
class KubernetesProtection:
    """Sets the annotation ``pod-deletion-cost`` of this pod, with the pod's service account.

    When a ReplicaSet is scaled down, it deletes pods without the annotation first. The service
    account needs ``patch`` on ``pods``.

    Args:
        account: the folder with ``token``, ``ca.crt`` and ``namespace``.
    """

    api: str
    pod: str
    account: Path = _SERVICE_ACCOUNT
    renew_s: float | None = None

    def set(self, busy: bool) -> None:
        """See ``Protection.set``."""
        namespace = (self.account / "namespace").read_text().strip()
        # Read each time, because Kubernetes replaces the token.
        token = (self.account / "token").read_text().strip()
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/merge-patch+json",
        }
        # None removes the annotation. A pod without the annotation has the cost 0.
        body = {"metadata": {"annotations": {_DELETION_COST: _BUSY_COST if busy else None}}}
        url = f"{self.api}/api/v1/namespaces/{namespace}/pods/{self.pod}"
        _request("PATCH", url, body, headers, self.account / "ca.crt")


def protection_of(kind: str, environ: Mapping[str, str]) -> Protection:
    """The protection of one of ``KINDS``, from the variables that the platform has set.

    Raises:
        UsageError: this process does not run on that platform.
    """
    if kind == "ecs":
        if uri := environ.get("ECS_AGENT_URI"):
            return EcsProtection(uri)
        raise UsageError(
            "--protect ecs works only in a task of ECS", why="ECS_AGENT_URI is not set"
        )
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    pod = environ.get("POD_NAME") or environ.get("HOSTNAME")
    if not (host and port and pod and _SERVICE_ACCOUNT.is_dir()):
        raise UsageError(
            "--protect kubernetes works only in a pod with a service account",
            why=f"no {_SERVICE_ACCOUNT}, or no KUBERNETES_SERVICE_HOST",
            hint="check automountServiceAccountToken of the pod and of its service account",
        )
    return KubernetesProtection(f"https://{f'[{host}]' if ':' in host else host}:{port}", pod)


class Protector:
    """Keeps a protection while there is work.

    Args:
        read: returns how many jobs are in hand, and how many have ended so far.
    """

    def __init__(
        self,
        protection: Protection,
        read: Callable[[], tuple[int, int]],
        log: Log,
        hold_s: float = HOLD_S,
    ) -> None:
        self._protection = protection
        self._read = read
        self._log = log
        self._hold_s = hold_s
        # Unknown at first: a master before this one may have died with the protection on.
        self._is_on: bool | None = None
        self._set_at = 0.0
        # What the last request asked for, even if the request failed or its answer is not known.
        self._last_wanted = False
        # One thread, so that requests never overtake each other.
        self._thread = ThreadPoolExecutor(1, "protection")
        self._retry_at = 0.0
        self._has_failed = False

    async def run(self) -> None:
        """Watch until cancelled. Then end the protection."""
        ended_before, hold_until = 0, 0.0
        try:
            while True:
                busy, ended = self._read()
                now = time.monotonic()
                # Jobs may also start and end between two readings.
                if busy or ended != ended_before:
                    hold_until = now + self._hold_s
                ended_before = ended
                await self._apply(now < hold_until, now)
                await asyncio.sleep(_TICK_S)
        finally:
            if self._last_wanted:
                await self._set(False)

    async def _apply(self, wanted: bool, now: float) -> None:
        renew_s = self._protection.renew_s
        is_due = wanted and renew_s is not None and now - self._set_at >= renew_s
        if (wanted is not self._is_on or is_due) and now >= self._retry_at:
            await self._set(wanted)

    async def _set(self, wanted: bool) -> None:
        self._last_wanted = wanted
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._protection.set, wanted)
        except (OSError, ValueError, HTTPException) as error:
            self._retry_at = time.monotonic() + RETRY_S
            if not self._has_failed:
                self._has_failed = True
                self._log.warning(
                    "the platform has not changed the protection; jobs run without it",
                    wanted="on" if wanted else "off", why=str(error) or repr(error),
                )  # fmt: skip
            return
        if self._has_failed:
            self._has_failed = False
            self._log.info("the platform accepts changes of the protection again")
        if wanted is not self._is_on:
            self._log.info("protection is on" if wanted else "protection is off")
        self._is_on, self._set_at = wanted, time.monotonic()


def _request(
    method: str, url: str, body: object, headers: Mapping[str, str], ca: Path | None = None
) -> bytes:
    """Send JSON, and return the beginning of the reply.

    Raises:
        OSError, ValueError, HTTPException: there is no reply, or its status is an error.
    """
    # No proxy: the agent and the API are addresses inside the task or the cluster.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca is not None:
        context = ssl.create_default_context(cafile=str(ca))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(  # noqa: S310 - from the platform's own variables
        url, json.dumps(body).encode(), dict(headers), method=method
    )
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as reply:
            found: bytes = reply.read(_MAX_REPLY_BYTES)
            return found
    except HTTPError as error:
        text = error.read(300).decode(errors="replace")
        raise ValueError(f"HTTP status {error.code}: {text}") from None
