"""``qctl __complete KIND PREFIX``: names for the shell's TAB, from a cache, at once.

The shell scripts (``qctl completion SHELL``) call this on every TAB. It prints what the cache
holds, and when that is old it starts a process in the background that reads the names anew for the
next TAB. Redis and PM2 are never waited for, so a dead one never hangs the shell. Any failure is
silent: there is no place for a message in the middle of a command line being typed.

Only small modules of the standard library are imported here, since each costs every TAB its time.
KIND is ``queues``, ``targets`` or ``contexts``.
"""

# pathlib costs 4 ms.
# ruff: noqa: PTH103, PTH105, PTH108, PTH109, PTH111, PTH113, PTH116, PTH118, PTH120, PTH123

from __future__ import annotations

import os
import sys
import time

# Type checkers take this name for true; importing it, or the types themselves, costs 10 ms.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qctl.config.settings import Settings

KINDS = ("queues", "targets", "contexts")
FRESH_S = 10.0
# Reading takes one pass over all keys of Redis; at most this part of the time is spent on it.
_LEAST_PAUSE = 30
# Only the very first TAB, when nothing is known yet, waits for an answer, and not for long.
FIRST_WAIT_S = 0.05
_KEPT_S = 30 * 86_400
# What influences the names beside the config files.
_VARIABLES = (
    *("QCTL_REDIS_URL", "REDIS_URL", "QCTL_PREFIX", "QCTL_CONTEXT", "PM2_HOME", "HOME"),
    "XDG_STATE_HOME",
)


def main(arguments: Sequence[str]) -> None:
    """Print the names of a kind that begin with a prefix; never raises."""
    try:
        kind, start = (*arguments, "", "")[:2]
        names = [name for name in _known(kind) if name.startswith(start)]
        # Not through sys.stdout: its encoding may not have every name.
        data = "".join(f"{name}\n" for name in names).encode()
        while data:
            data = data[os.write(1, data) :]
    except (Exception, KeyboardInterrupt):
        return


def _known(kind: str) -> list[str]:
    if kind not in KINDS:
        return []
    path = cache_path(os.environ, os.getcwd())
    names, is_fresh = _read(path, kind)
    if is_fresh:
        return names or []
    started = _start_refresher(path)
    if names is not None:
        return names
    deadline = time.monotonic() + FIRST_WAIT_S
    while started and names is None and time.monotonic() < deadline:
        time.sleep(0.01)
        names, _ = _read(path, kind)
    return names or []


def cache_path(environ: Mapping[str, str], folder: str) -> str:
    """The cache file for these variables and the config files that count in ``folder``.

    Its name is a digest of where the names come from, without the password.
    """
    import hashlib  # noqa: PLC0415 - the refresher is told the path

    parts = [_without_password(environ.get(name, "")) for name in _VARIABLES]
    if any(part.startswith("embedded:") for part in parts):
        # Its path may be relative.
        parts.append(folder)
    config = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    parts += _version(os.path.join(config, "qctl", "config.toml"))
    while True:
        candidate = os.path.join(folder, "qctl.toml")
        parent = os.path.dirname(folder)
        if os.path.isfile(candidate) or parent == folder:
            parts += _version(candidate)
            break
        folder = parent
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=12)
    base = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "qctl", f"complete-{digest.hexdigest()}")


def _without_password(url: str) -> str:
    credentials, at, rest = url.rpartition("@")
    scheme, separator, user = credentials.partition("://")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{rest}" if separator else url


def _version(path: str) -> list[str]:
    try:
        status = os.stat(path)
    except OSError:
        return ["", ""]
    return [path, str(status.st_mtime_ns)]


def _read(path: str, kind: str) -> tuple[list[str] | None, bool]:
    """The names in the cache, None without one; and whether they are new enough."""
    try:
        with open(path, encoding="utf-8") as file:
            age_s = time.time() - os.fstat(file.fileno()).st_mtime
            took, _, rest = file.read().partition("\n")
        fresh_s = max(FRESH_S, _LEAST_PAUSE * float(took))
    except FileNotFoundError:
        return None, False
    except (OSError, ValueError):
        return [], False
    rows = [line.partition("\t") for line in rest.splitlines()]
    return [name for row, _, name in rows if row == kind], 0 <= age_s < fresh_s


def _start_refresher(path: str) -> bool:
    """Start the refresher unless one is at work; whether one is."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    busy = f"{path}.busy"
    try:
        os.close(os.open(busy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        # One that was killed leaves its mark; it is believed only for a while.
        if time.time() - os.stat(busy).st_mtime < FRESH_S:
            return True
        os.utime(busy)
    import subprocess  # noqa: PLC0415 - 8 ms that a fresh cache saves

    # -P: nothing is imported from the folder that the operator happens to be in.
    subprocess.Popen(
        [sys.executable, "-P", "-m", "qctl.cli.complete", path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True


# The refresher


def refresh(path: str) -> None:
    """Read the names and replace the cache file; what cannot be read keeps its old names."""
    began = time.monotonic()
    lines = []
    for kind, names in _sources():
        try:
            found = list(names)
        except Exception:
            found = _read(path, kind)[0] or []
        lines += [f"{kind}\t{name}\n" for name in sorted(set(found)) if name.isprintable()]
    took = time.monotonic() - began
    _replace(path, f"{took:.3f}\n" + "".join(lines))
    _forget_old(os.path.dirname(path))


def _sources() -> Iterable[tuple[str, Iterable[str]]]:
    from qctl.config.settings import load_settings  # noqa: PLC0415 - 30 ms

    try:
        settings = load_settings()
    except Exception:
        # A context that does not exist: the names of those that do are what is wanted.
        environ = {key: value for key, value in os.environ.items() if key != "QCTL_CONTEXT"}
        yield "contexts", load_settings(environ=environ).contexts
        return
    yield "contexts", settings.contexts
    yield "targets", _targets(settings)
    # TAB must not make a key ring ask its owner.
    if settings.password is None or not settings.password.command:
        yield "queues", _queues(settings)


def _queues(settings: Settings) -> Iterable[str]:
    from qctl.connection.connect import connect  # noqa: PLC0415
    from qctl.ops.queues.names import QueueNameCache  # noqa: PLC0415

    # TAB must not start a Redis either.
    address, client = connect(settings.full_url(), start=False)
    cache = QueueNameCache(settings.state_home, address, settings.prefix)
    try:
        # The pass over all keys is shared with `qctl status`, where it takes long.
        cached = cache.read()
        yield from (cache.scan(client) if cached is None or cached.is_scan_due else cached).names
    finally:
        client.close()


def _targets(settings: Settings) -> Iterable[str]:
    from qctl.manage.qctl.state import names  # noqa: PLC0415

    yield from (target.name for target in settings.targets)
    yield from (f"qctl:{name}" for name in names(settings.state_home))
    # Without the socket PM2 does not run, and TAB must not start it.
    if (settings.pm2_home / "rpc.sock").exists():
        from qctl.manage.pm2.manager import Pm2  # noqa: PLC0415

        for process in Pm2(settings.pm2_home).processes():
            yield process.target


def _replace(path: str, text: str) -> None:
    draft = f"{path}.{os.getpid()}"
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _forget_old(folder: str) -> None:
    """Every change of a config file begins a new cache file; remove those of long ago."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat().st_mtime < time.time() - _KEPT_S:
                os.unlink(entry.path)


def _run_refresher(path: str) -> None:
    try:
        refresh(path)
    finally:
        os.unlink(f"{path}.busy")


if __name__ == "__main__":
    _run_refresher(sys.argv[1])
