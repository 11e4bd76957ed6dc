"""Calls to supervisord: XML-RPC over HTTP, on its unix socket or its port.

Answers are limited in time and size. The command lines in an answer may contain secrets, so an
error quotes nothing of an answer except the text of a fault.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from typing import Any
from xml.parsers.expat import ExpatError
from xmlrpc import client as xmlrpc

from qctl.errors import ManagerUnreachableError
from qctl.manage.supervisord.address import Address

# The time limit for one call, from connecting to the end of the answer.
TIMEOUT_S = 10.0
# Enough for 2,000 processes: each takes about 4 KB.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
_CHUNK = 64 * 1024
_MAX_MESSAGE = 300
_HINT = (
    "set supervisord.url, or QCTL_SUPERVISORD_URL, to the `serverurl` in supervisord's "
    "[supervisorctl] section; or run qctl as the user that may run `supervisorctl status`"
)

# The numbers of supervisord's faults.
SHUTDOWN_STATE = 6
BAD_NAME = 10
SPAWN_ERROR = 50
ALREADY_STARTED = 60
NOT_RUNNING = 70


class FaultError(Exception):
    """supervisord refused a call; the text is supervisord's own, shortened."""

    def __init__(self, code: int, text: str) -> None:
        plain = "".join(char for char in text if char.isprintable())
        super().__init__(plain[:_MAX_MESSAGE] or f"fault {code}")
        self.code = code


def call(address: Address, method: str, *params: Any, timeout_s: float = TIMEOUT_S) -> Any:
    """Call a method and return its result.

    Raises:
        FaultError: supervisord refused.
        ManagerUnreachableError: nothing listens there, this user may not connect, no answer came in
            time, or the answer is not that of a supervisord.
    """
    deadline = time.monotonic() + timeout_s
    body = xmlrpc.dumps(params, method).encode()
    with contextlib.closing(_connect(address, timeout_s)) as connection:
        answer = _exchange(connection, address, _request(address, body), deadline)
    if answer is None:
        raise ManagerUnreachableError(
            f"supervisord does not answer within {timeout_s:g} s",
            why=f"{address} accepts connections, but no answer to {method} came",
            hint="see supervisord's log",
        )
    return _parse(_body(answer, address), address, deadline)


def call_all(address: Address, *methods: str, timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Call several methods without parameters in one request; return their results.

    Raises like ``call``.
    """
    calls = [{"methodName": method, "params": []} for method in methods]
    answers = call(address, "system.multicall", calls, timeout_s=timeout_s)
    if not isinstance(answers, list) or len(answers) != len(methods):
        raise _not_understood(address)
    for answer in answers:
        if isinstance(answer, dict) and "faultCode" in answer:
            raise _fault(address, answer["faultCode"], answer.get("faultString"))
    return answers


def _connect(address: Address, timeout_s: float) -> socket.socket:
    family = socket.AF_INET if address.socket is None else socket.AF_UNIX
    if ":" in address.host:
        family = socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        if address.socket is not None:
            connection.connect(str(address.socket))
        else:
            connection.connect((address.host, address.port))
    except OSError as error:
        connection.close()
        what = "supervisord cannot be reached"
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            what = "supervisord does not run here"
        elif isinstance(error, PermissionError):
            what = "this supervisord belongs to another user"
        why = f"{address}: {error.strerror or error}"
        raise ManagerUnreachableError(what, why=why, hint=_HINT) from error
    return connection


def _request(address: Address, body: bytes) -> bytes:
    # With HTTP 1.0, the answer ends with the connection and is never sent in chunks.
    lines = ["POST /RPC2 HTTP/1.0", "Content-Type: text/xml", f"Content-Length: {len(body)}"]
    if address.user or address.password:
        credentials = f"{address.user}:{address.password}".encode()
        lines.append(f"Authorization: Basic {base64.b64encode(credentials).decode()}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _exchange(
    connection: socket.socket, address: Address, request: bytes, deadline: float
) -> bytes | None:
    """Send the request and return the whole answer; None if it does not come in time."""
    answer = bytearray()
    try:
        connection.sendall(request)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            chunk = connection.recv(_CHUNK)
            if not chunk:
                return bytes(answer)
            answer += chunk
            if len(answer) > MAX_ANSWER_BYTES:
                raise _not_understood(address, f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    except TimeoutError:
        pass
    except OSError as error:
        raise ManagerUnreachableError(
            "supervisord closed the connection without an answer",
            why=f"{address}: {error.strerror or error}",
            hint=_HINT,
        ) from error
    return None


def _body(answer: bytes, address: Address) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(maxsplit=2)
    code = words[1] if len(words) > 1 and words[0].startswith(b"HTTP/") else b""
    if code == b"200":
        return body
    if code == b"401":
        raise ManagerUnreachableError(
            "supervisord wants another user or password", why=str(address), hint=_HINT
        )
    if code == b"404":
        raise ManagerUnreachableError(
            "supervisord does not accept calls",
            why=f"{address}: there is no [rpcinterface:supervisor] in its configuration",
            hint=_HINT,
        )
    raise _not_understood(address)


def _parse(body: bytes, address: Address, deadline: float) -> Any:
    """The result in an XML-RPC answer."""
    # Refuse declarations: they can define entities, and these can expand to a huge text.
    if b"<!" in body:
        raise _not_understood(address)
    fault: xmlrpc.Fault | None = None
    result: Any = None
    try:
        parser, unmarshaller = xmlrpc.getparser()
        for start in range(0, len(body), _CHUNK):
            if time.monotonic() > deadline:
                break
            parser.feed(body[start : start + _CHUNK])
        parser.close()
        (result,) = unmarshaller.close()
    except xmlrpc.Fault as error:
        fault = error
    except (ExpatError, xmlrpc.Error, ArithmeticError, LookupError, TypeError, ValueError):
        # The error is raised below, after this block. If it were raised here, its traceback would
        # show the parser's exception, which contains the text of the answer.
        result = None
    if fault is not None:
        raise _fault(address, fault.faultCode, fault.faultString)
    if result is None:
        raise _not_understood(address)
    return result


def _fault(address: Address, code: object, text: object) -> Exception:
    if not isinstance(code, int) or not isinstance(text, str):
        return _not_understood(address)
    return FaultError(code, text)


def _not_understood(address: Address, why: str = "") -> ManagerUnreachableError:
    return ManagerUnreachableError(
        "the answer is not that of a supervisord",
        why=f"{address}: {why}" if why else str(address),
        hint=_HINT,
    )
