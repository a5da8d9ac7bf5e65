"""Folders of models as bytes, for nodes of a cluster that do not see the disk of this one."""

import io
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from lema.errors import RunError

MOST = 4 * 2**30  # bytes; Ray's object store holds a copy on every node


def packed(folder: Path) -> bytes:
    """The files of a folder as an uncompressed tar.

    Raises:
        RunError: they are too large to be sent around.
    """
    if (size := sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())) > MOST:
        raise RunError(
            f"the model in {folder.name} has {size / 2**30:.0f} GiB, too much to send to the nodes of a cluster: "
            "name it by the hub, or put it on a disk that all nodes see, at the same path"
        )
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return whole.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Lay them out in a folder that is not there yet; of two processes that do so one is in vain."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(beside, filter="data")
    with suppress(OSError):
        beside.rename(folder)
