"""Each test process keeps to a processor of its own: two torches that share two of them slow each other many times."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.small_project import Project, small_project

if TYPE_CHECKING:
    from lema.compute.ray_pool import RayExecutor


@pytest.fixture(scope="session")
def ray() -> "Iterator[RayExecutor]":
    """One Ray for all tests of a process: each takes seconds to start."""
    from lema.compute.ray_pool import RayExecutor

    with RayExecutor() as it:
        yield it


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project on disk; see `tests/small_project.py`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return small_project(tmp_path)


def pytest_configure() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, or the last of them would run while the other processes have nothing left.

    Without --no-loadscope-reorder, pytest-xdist puts files of few tests last, which are the slow ones.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
