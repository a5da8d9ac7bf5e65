"""Projects to run commands in: one that is fresh, and one in which everything up to the mixes has been made."""

import fcntl
from pathlib import Path

import pytest

from tests.e2e.project import Project, new_project


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """Made once for all tests, also when several processes share them; never changed."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    root = shared / "made"
    with (shared / "made.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if lock.read() != "made":
            new_project(root).repro()
            lock.write("made")
    return Project(root)


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """Nothing made yet."""
    return new_project(tmp_path / "fresh")


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """Everything up to the mixes made."""
    return template.copy(tmp_path / "project")
