"""Where work is done changes no byte: everything in one process, and Ray."""

import pytest

from tests.e2e.project import Project, params

ROWS = ("source", "questions", "samples", "grades", "corrections", "verdicts", "mix/cot", "mix/lema")


@pytest.mark.slow
def test_ray_and_one_process_make_equal_bytes(template: Project, fresh: Project) -> None:
    fresh.write("params.yaml", params(executor="ray"))
    made = fresh.run("lema", "repro", "mix@tiny-cot", "mix@tiny-lema")
    assert made.bought["samples"] == (60, 0, 60)
    for name in ROWS:
        assert fresh.read(f"{name}.parquet") == template.read(f"{name}.parquet"), name
