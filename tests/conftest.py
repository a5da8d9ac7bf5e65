"""Each test process keeps to a processor of its own: two torches that share two of them slow each other many times."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lema.engine.ray import RayExecutor


@pytest.fixture(scope="session")
def ray() -> "Iterator[RayExecutor]":
    """One Ray for all tests of a process: each takes seconds to start."""
    from lema.engine.ray import RayExecutor

    with RayExecutor() as it:
        yield it


def pytest_configure() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
