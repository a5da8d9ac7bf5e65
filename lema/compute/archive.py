"""Folders of models as bytes, for nodes of a cluster that do not see the disk of this one."""

import io
import shutil
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from lema.errors import RunError

MOST = 4 * 2**30  # bytes; Ray's object store holds a copy on every node


def pack_folder(folder: Path) -> bytes:
    """A folder, with all that is in it, as an uncompressed tar.

    Raises:
        RunError: it is larger than `MOST`.
    """
    if (size := sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())) > MOST:
        raise RunError(
            f"the model in {folder.name} has {size / 2**30:.0f} GiB, too much to send to the nodes of a cluster: "
            "name it by the hub, or put it on a disk that all nodes see, at the same path"
        )
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        archive.add(folder, ".")
    return content.getvalue()


def unpack_folder(content: bytes, folder: Path) -> None:
    """Write what `pack_folder` made to a folder that is not there yet; of two processes that do so one wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(beside, filter="data")
        with suppress(OSError):
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
