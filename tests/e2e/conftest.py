"""Projects to run commands in. Those that take long to make are made once a session and never changed."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.project import Project, new_project, params

ARMS = ("cot", "lema")


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Project], object]], Project]:
    """Makes a project once, also when several test processes ask for it at the same time."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def project(name: str, make: Callable[[Project], object]) -> Project:
        root = shared / name
        with (shared / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if lock.read() != "made":
                shutil.rmtree(root, ignore_errors=True)
                make(new_project(root))
                lock.write("made")
        return Project(root)

    return project


@pytest.fixture(scope="session")
def template(once: Callable[..., Project]) -> Project:
    """The tiny recipe with everything up to the mixes made; only to be read or copied."""
    return once("template", Project.repro)


@pytest.fixture(scope="session")
def smoke(once: Callable[..., Project]) -> Project:
    """The shipped recipe `smoke` after `dvc repro`; only to be read."""
    pytest.importorskip("torch", reason="needs the extra `train`")

    def make(project: Project) -> None:
        runs = {f"smoke-{arm}": {"recipe": "smoke", "arm": arm} for arm in ARMS}
        project.write("params.yaml", params() | {"recipes": {"smoke": "constraints.txt"}, "runs": runs})
        project.run("dvc", "repro")

    return once("smoke", make)


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """The tiny recipe with everything up to the mixes made, to do with as a test likes."""
    return template.copy(tmp_path / "project")
