"""What a worker on another machine needs of this one: the project's code, and folders of models.

Ray moves objects, not folders. A node that does not see the project gets its code and the folders that the work reads
as bytes, and lays them out below a folder of its own under the same relative names.
"""

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from lema.errors import RunError

# Never code, and often large.
SKIPPED = {"data", "completions", "node_modules", "__pycache__", "build", "dist"}
MOST = 20 * 2**20  # bytes of code; more is a sign that this is no project's root


def code(root: Path) -> bytes:
    """The project's Python files, and the templates beside them, as an uncompressed tar.

    Raises:
        RunError: there is more of it than `MOST`.
    """
    files = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in SKIPPED)
        files += [Path(folder, name) for name in sorted(names) if name.endswith((".py", ".j2", ".yaml", ".json"))]
    if (size := sum(path.stat().st_size for path in files)) > MOST:
        raise RunError(f"the project's code is {size / 2**20:.0f} MB, too much to send to the nodes of a cluster")
    return packed(root, files)


def packed(root: Path, files: Iterable[Path]) -> bytes:
    """Files as an uncompressed tar, named from `root`, without owners and times."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in files:
            entry = tarfile.TarInfo(path.relative_to(root).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return whole.getvalue()


def folder(path: Path) -> bytes:
    """A folder's files as a tar."""
    return packed(path, sorted(one for one in path.rglob("*") if one.is_file()))


def unpack(content: bytes, where: Path) -> None:
    """Lay a tar out in a folder, which is made."""
    where.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(where, filter="data")


def settle(project: str, content: bytes, folders: Mapping[str, bytes]) -> None:
    """Make this process work in the project: its own folder where that can be seen, else one made of what was sent.

    Folders of models are laid out only where they are not: on a node that sees the project's disk nothing is copied.
    """
    if Path(project).is_dir():
        os.chdir(project)
    else:
        where = Path(tempfile.mkdtemp(prefix="lema-"))
        unpack(content, where)
        os.chdir(where)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name, packed_folder in folders.items():
        if not Path(name).exists():
            unpack(packed_folder, Path(name))
