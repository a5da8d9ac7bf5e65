from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lema.recipe.training_schema import AdapterSpec
from lema.stages.adapter import adapter


def run(folder: Path, **spec: Any) -> list[int]:
    """Runs the stage with a trainer that writes its seed, and returns the seeds."""
    trained = []

    def train(examples: list[str], base: str, jobs: list[tuple[AdapterSpec, Path, Path]]) -> None:
        for spec, folder, curve in jobs:
            trained.append(spec.seed)
            assert (examples, base, spec.seeds) == (["example"], "base", ())
            (folder / "weights").write_text(f"{spec.seed}")
            dev = "" if spec.seed == 4 else "7"
            curve.write_text(f"step,loss,dev\n1,{2 + spec.seed},3\n2,{1 + spec.seed},{dev}\n")

    folder.mkdir()
    curve = folder.parent / "curves" / "arm.csv"
    curve.parent.mkdir()
    adapter(["example"], "base", spec=AdapterSpec(epochs=1, **spec), train=train, folder=folder, curve=curve)  # type: ignore[list-item]
    return trained


def test_one_training_fills_the_folder_itself(tmp_path: Path) -> None:
    assert run(tmp_path / "arm", seed=3) == [3]
    assert (tmp_path / "arm" / "weights").read_text() == "3"
    assert (tmp_path / "curves" / "arm.csv").read_text().splitlines()[1] == "1,5,3"


def test_one_folder_a_seed_and_the_mean_of_the_curves(tmp_path: Path) -> None:
    assert run(tmp_path / "arm", seeds=(0, 1, 4)) == [0, 1, 4]
    assert sorted(path.name for path in (tmp_path / "arm").iterdir()) == ["0", "1", "4"]
    assert [(tmp_path / "arm" / seed / "weights").read_text() for seed in "014"] == ["0", "1", "4"]
    assert (tmp_path / "arm" / "1" / "curve.csv").is_file()
    assert (tmp_path / "curves" / "arm.csv").read_text() == "step,loss,dev\n1,3.66667,3\n2,2.66667,\n"


@pytest.mark.parametrize(
    ("spec", "message"), [({"seeds": (1, 1)}, "same seed twice"), ({"seed": 1, "seeds": (2,)}, "one of seed, seeds")]
)
def test_seeds_that_contradict_one_another(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdapterSpec(epochs=1, **spec)
