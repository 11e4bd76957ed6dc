"""Runs ``kubectl`` for one context, and explains its errors.

An object of the API contains the environment variables of containers, which may be secrets. So
``Kubectl.print`` gives kubectl a Go template, and kubectl prints only the fields in the template.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from qctl.errors import ManagerUnreachableError
from qctl.manage.tool import ToolFailedError, printable, run_tool

# Lines of kubectl's own log, which precede the error: "E1130 16:25:03.123456 123 memcache.go:265]".
_LOG_LINE = re.compile(r"[EWI]\d{4} [\d:.]+ +\d+ \S+\]")
_NO_CONTEXT = re.compile(r"context .* (does not exist|was not found)|context was not found")


class MissingError(Exception):
    """The API server has no such object."""


class Kubectl:
    """``kubectl`` for one context.

    Args:
        context: a context of the kubeconfig; "" for its current context.
        timeout_s: how long each call may take, including the plug-ins with which kubectl logs in.
    """

    def __init__(self, context: str, timeout_s: float) -> None:
        self._context = context
        self._timeout_s = timeout_s

    def command(self, *words: str) -> tuple[str, ...]:
        """The program and its arguments."""
        # The option and the name are one word. As a separate word, a name that begins with a dash
        # would be taken for an option.
        context = [f"--context={self._context}"] if self._context else []
        return ("kubectl", *context, *words)

    def print(self, words: Sequence[str], template: str) -> list[list[str]]:
        """What ``kubectl get`` prints by a Go template: lines of fields separated by tabs.

        Raises:
            MissingError: there is no such object.
            ManagerUnreachableError: kubectl or the API server gave no answer, or refused.
        """
        output = self.run("get", *words, "-o", f"go-template={template}")
        return [line.split("\t") for line in output.splitlines() if line]

    def run(self, *words: str) -> str:
        """The stdout of kubectl; raises like ``print``."""
        if shutil.which("kubectl") is None:
            raise ManagerUnreachableError(
                "there is no `kubectl` command on PATH",
                why="qctl reaches Kubernetes only through kubectl",
                hint="install kubectl, and check that `kubectl get deployments` works",
            )
        try:
            return run_tool(self.command(*words), timeout_s=self._timeout_s, reason=_error_line)
        except ToolFailedError as error:
            if "(NotFound)" in error.message:
                raise MissingError(error.message) from None
            raise self._explained(error.message) from None
        except ManagerUnreachableError as error:
            raise ManagerUnreachableError(
                f"Kubernetes gave no answer{self._in_context}",
                why=f"{error.what}: {error.why}",
                hint="check that `kubectl get deployments` works without asking for input",
            ) from None

    @property
    def _in_context(self) -> str:
        return f" in the context {self._context}" if self._context else ""

    def _explained(self, message: str) -> ManagerUnreachableError:
        if _NO_CONTEXT.search(message):
            what = f"kubectl has no context {self._context!r}"
            return ManagerUnreachableError(what, why=message, hint="kubectl config get-contexts")
        if "(Forbidden)" in message:
            return ManagerUnreachableError(
                f"Kubernetes refuses this user a right that qctl needs{self._in_context}",
                why=message,
                hint="grant the user the rights that `qctl help deploy` lists for Kubernetes",
            )
        if "(Unauthorized)" in message or "must be logged in" in message:
            what = f"Kubernetes does not accept this user{self._in_context}"
            return ManagerUnreachableError(what, why=message, hint="log in to the cluster again")
        return ManagerUnreachableError(
            f"Kubernetes cannot be reached{self._in_context}",
            why=message,
            hint="check that `kubectl get deployments` works",
        )


def _error_line(stderr: bytes) -> str:
    """The last line of kubectl's error output that does not belong to kubectl's own log."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    plain = [line for line in lines if not _LOG_LINE.match(line)]
    return printable((plain or lines or [""])[-1])
