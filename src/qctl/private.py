"""qctl's own files, folders, sockets and locks: open to this user alone, whatever the umask.

Files and sockets have mode 0600, folders 0700, from the moment they exist.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path


def make_folder(path: Path, top: Path | None = None) -> None:
    """Create a folder and its missing parents.

    Args:
        top: ``path`` or a parent of it. All folders from ``top`` down to ``path`` are qctl's own:
            if such a folder already exists, other users lose all rights to it. If ``top`` is None,
            existing folders stay as they are.

    Raises:
        OSError: a folder cannot be created, or one of qctl's own belongs to another user.
    """
    # mkdir(parents=True) would give the parents all rights that the umask leaves.
    for folder in reversed((path, *path.parents)):
        with contextlib.suppress(FileExistsError):
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if top is not None:
        inside = path.relative_to(top)
        for folder in (inside, *inside.parents):
            _close_to_others(top / folder)


def _close_to_others(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"{folder} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)


def open_file(path: Path, flags: int) -> int:
    """Open a file, or create it, and return a descriptor that child processes do not inherit.

    If the file belongs to this user, other users lose all rights to it.

    Args:
        flags: of ``os.open``, such as ``os.O_WRONLY | os.O_TRUNC``.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
        os.fchmod(descriptor, 0o600)
    return descriptor


def try_lock(path: Path) -> int | None:
    """Lock a file, and return the descriptor that holds the lock; None if the file is locked.

    The file is created if it does not exist. The caller closes the descriptor. If child processes
    have inherited the descriptor, the lock ends only when they have closed it, too.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    descriptor = open_file(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def bind(listener: socket.socket, path: Path) -> None:
    """Bind a unix socket that does not exist yet.

    Raises:
        OSError: the socket cannot be bound.
    """
    # On Linux, the path gets the mode of the descriptor. Setting the umask would work on every
    # system, but would also affect files that other threads create at the same time.
    with contextlib.suppress(OSError):
        os.fchmod(listener.fileno(), 0o600)
    listener.bind(str(path))
    path.chmod(0o600)
