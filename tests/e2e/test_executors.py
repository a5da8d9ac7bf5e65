"""Where work is done changes no byte: everything in one process, and Ray."""

import shutil

import pytest

from tests.e2e.project import Project, params

ROWS = ("samples", "corrections")  # of the other stages of so few rows, none leaves its process


@pytest.mark.slow
def test_ray_and_one_process_make_equal_bytes(template: Project, project: Project) -> None:
    project.write("params.yaml", params(executor="ray"))
    shutil.rmtree(project.root / "completions")
    for name in ROWS:
        (project.root / "data" / "tiny" / f"{name}.parquet").unlink()
    made = project.run("lema", "repro", "--force", "--single-item", *(f"{name}@tiny" for name in ROWS))
    assert made.ran == [f"{name}@tiny" for name in ROWS]
    assert made.bought["samples"] == (60, 0, 60)
    for name in ROWS:
        assert project.read(f"{name}.parquet") == template.read(f"{name}.parquet"), name
