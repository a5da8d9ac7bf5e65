import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def real_records() -> Callable[[str], list[dict[str, Any]]]:
    """The records of a real data set, which is no part of the project; the test is skipped where it is absent."""

    def read(name: str) -> list[dict[str, Any]]:
        file = Path(os.environ.get("LEMA_TEST_DATA", Path(__file__).parents[3] / "shared/data")) / name
        if not file.exists():
            pytest.skip(f"no data at {file}; set LEMA_TEST_DATA")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    return read
