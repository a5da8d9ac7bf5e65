"""The process in which a part of the user's is tried.

It is forked, so it starts at once; it reaches no network, sees no GPU, prints nothing, and is killed after TIME_LIMIT
seconds. A part that is kept from the network cannot be tried, which is no problem; nor is a backend that is only slow.
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
    """What a part did wrong; `culprit` is the function of the user's that did it, or what that raised."""

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
        return f"ended the process that tried it{_place(trial.part, root)}"
    finally:
        process.kill()
        process.join()
    return None if trial.patient else f"did not finish in {TIME_LIMIT:g} seconds{_place(trial.part, root)}"


def _child(trial: Trial, root: Path, sender: Connection) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    refused: list[bool] = []

    def refuse(*_: Any, **__: Any) -> Any:
        refused.append(True)
        raise ConnectionError("lema check asks no network")

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = socket.create_connection = refuse
    message = None
    try:
        trial.call()
    except PartFailure as error:
        message = f"{error}{_place(error.culprit, root) or _place(trial.part, root)}"
    except Exception as error:
        if not refused:
            place = _place(error, root) or _place(trial.part, root)
            message = f"raised {type(error).__name__}: {error}{place}"
    sender.send(message and " ".join(message.split()))


def _place(culprit: Any, root: Path) -> str:
    """Where a function, or the class of an object, is defined, or the last line of the project's own code that an error
    passed; as the end of a message."""
    if isinstance(culprit, Exception):
        frames = traceback.extract_tb(culprit.__traceback__)
        passed = [(file, one.lineno) for one in frames if (file := _project_file(one.filename, root))]
        return f" ({passed[-1][0]}:{passed[-1][1]})" if passed else ""
    try:
        thing = culprit if inspect.isroutine(culprit) or inspect.isclass(culprit) else type(culprit)
        file, line = inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1]
    except (TypeError, OSError):
        return ""
    return f" ({_project_file(file, root) or Path(file).name}:{line})"


def _project_file(file: str, root: Path) -> str | None:
    """A file of the project relative to its root; None for any other, such as what is installed in it."""
    path, home = Path(file).resolve(), root.resolve()
    inside = path.relative_to(home) if path.is_relative_to(home) else None
    return inside.as_posix() if inside and not {"site-packages", "lema"} & set(inside.parts) else None
