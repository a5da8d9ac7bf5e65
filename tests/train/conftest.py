"""A tiny student, trained once for all tests of this folder."""

from pathlib import Path

import pytest

from lema.recipe.basic_types import Prompt
from lema.recipe.training_schema import BaseSpec, PretrainSpec
from lema.train.base import Base, open_base, write_base

COT = Prompt(
    user="{{ question }}",
    assistant="{% for step in steps %}\n{{ step }}\n{% endfor %}\nThe answer is {{ answer }}.",
)
TINY = PretrainSpec(
    format=COT,
    options={"seed": 5, "steps": (1,), "largest": 20},
    width=32,
    layers=1,
    heads=2,
    vocabulary=350,
    context=256,
    steps=25,
    batch=16,
    lr=1e-2,
)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(BaseSpec(pretrain=TINY, chat=False), folder, tmp_path_factory.mktemp("home"))
    return folder


@pytest.fixture(scope="session")
def base(base_folder, tmp_path_factory) -> Base:
    return open_base(base_folder, tmp_path_factory.mktemp("home"))
