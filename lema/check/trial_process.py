"""The process in which a part of the user's is tried.

It is forked, so it starts at once; it reaches no network, sees no GPU, prints nothing, and is killed after TIME_LIMIT
seconds.

A part that is kept from the network cannot be tried, which is no problem; nor is a backend that is only slow.
"""

import inspect
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lema.recipe.yaml import KeyPath

TIME_LIMIT = 10.0  # seconds a part


class PartFailure(Exception):
    """What a part did wrong; `culprit` is the function of the user's that did it."""

    def __init__(self, message: str, culprit: Any) -> None:
        super().__init__(message)
        self.culprit = culprit


@dataclass(frozen=True, slots=True)
class Trial:
    """A part of the user's at its place in the recipe, and what calls it: that raises PartFailure, or whatever the
    part raises. `patient`: a part that does not finish may only be slow."""

    path: KeyPath
    name: str
    part: Any
    call: Callable[[], None]
    patient: bool = False


def run_trial(trial: Trial, root: Path) -> str | None:
    """What is wrong with a part, after its name in a message; None when nothing is."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(trial, root, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(TIME_LIMIT):
            message: str | None = receiver.recv()
            return message
    except EOFError:
        return f"ended the process that tried it{_defined_at(trial.part, root)}"
    finally:
        process.kill()
        process.join()
    return None if trial.patient else f"did not finish in {TIME_LIMIT:g} seconds{_defined_at(trial.part, root)}"


def _child(trial: Trial, root: Path, sender: Connection) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    refused = _without_network()
    message = None
    try:
        trial.call()
    except PartFailure as error:
        culprit = error.culprit
        place = _raised_at(culprit, root) if isinstance(culprit, Exception) else _defined_at(culprit, root)
        message = f"{error}{place or _defined_at(trial.part, root)}"
    except Exception as error:
        if not refused:
            place = _raised_at(error, root) or _defined_at(trial.part, root)
            message = f"raised {type(error).__name__}: {error}{place}"
    sender.send(message and " ".join(message.split()))


def _without_network() -> list[bool]:
    """Refuse connections in this process; the list has an entry once one was asked for."""
    refused: list[bool] = []

    def refuse(*_: Any, **__: Any) -> Any:
        refused.append(True)
        raise ConnectionError("lema check asks no network")

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = socket.create_connection = refuse
    return refused


def _raised_at(error: BaseException, root: Path) -> str:
    """The last line of the project's own code that an error passed, as the end of a message."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _project_file(frame.filename, root)]
    return f" ({_project_file(frames[-1].filename, root)}:{frames[-1].lineno})" if frames else ""


def _defined_at(part: Any, root: Path) -> str:
    """Where a function or the class of an object is defined, as the end of a message."""
    try:
        thing = part if inspect.isroutine(part) or inspect.isclass(part) else type(part)
        file, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]
    except (TypeError, OSError):
        return ""
    return f" ({_project_file(file or '', root) or Path(file or '').name}:{line})"


def _project_file(file: str, root: Path) -> str | None:
    """A file of the project relative to its root; None for any other, such as what is installed in it."""
    path = Path(file).resolve()
    inside = path.is_relative_to(root.resolve()) and not {"site-packages", "lema"} & set(
        path.relative_to(root.resolve()).parts
    )
    return path.relative_to(root.resolve()).as_posix() if inside else None
