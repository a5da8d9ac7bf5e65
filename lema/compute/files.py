"""Outputs that appear whole or not at all, one maker at a time, and processes that do not outlive their parent."""

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lema.errors import RunError

PR_SET_PDEATHSIG = 1
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def home() -> Path:
    """Where what is worth keeping between runs lies: `$LEMA_HOME`, or `.lema` in the project."""
    return Path(os.environ.get("LEMA_HOME") or ".lema")


def fsync_path(path: Path) -> None:
    """Force a file's bytes, or a folder's list of names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Say in one line why a path cannot be written.

    Raises:
        RunError: the disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise RunError(f"{path} cannot be written: {os.strerror(error.errno)}") from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write an output, a file or a folder, beside its place and move it there when the block ends without error.

    Yields the path to write to, which does not exist yet; whether it becomes a file or a folder is the caller's
    choice. A previous output is replaced. Two makers of one output must hold its `lock`.

    Raises:
        RunError: the block made nothing, or the disk is full or not writable.
    """
    partial, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        try:
            yield partial
            if not partial.exists():
                raise RunError(f"{path}: nothing was written")
            for written in [*(partial.rglob("*") if partial.is_dir() else ()), partial]:
                fsync_path(written)
            if path.is_dir() or (partial.is_dir() and path.exists()):
                _remove(old)
                path.rename(old)
            partial.replace(path)
            fsync_path(path.parent)
            _remove(old)
        except BaseException:
            _remove(partial)
            raise


def try_lock(handle: int) -> bool:
    """Try to lock an open file for this process; the lock is gone when the process is, however it ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Be the only process that makes `path`. The lock is a file under `home()`, so it leaves nothing beside outputs.

    Raises:
        RunError: another process makes it, and `wait` is False; or the lock cannot be written.
    """
    place = home() / "locks" / f"{path.name}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    with explain_write_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("a+")
    with file:
        if not try_lock(file.fileno()):
            file.seek(0)
            message = f"{path} is being made by another process ({file.read().strip() or 'just started'})"
            if not wait:
                raise RunError(message)
            print(f"{message}; waiting for it", file=sys.stderr)  # noqa: T201
            fcntl.flock(file, fcntl.LOCK_EX)
        # Who holds it is for people to read, so a full disk is no reason to stop.
        with suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"pid {os.getpid()}".encode())
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies, so that a killed `dvc` leaves no stage running
    beside its rerun. Linux only; elsewhere the lock of each output makes the second one wait."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os.kill(os.getpid(), by)
