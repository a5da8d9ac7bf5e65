"""Canonical Parquet."""

import gc
import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lema import rows
from lema.compute import external_sort, parquet
from lema.errors import RunError


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    weight: float | None


@dataclass(frozen=True, slots=True)
class Whole:
    id: str
    kind: Literal["a", "b"]
    count: int
    flag: bool
    share: float | None
    words: tuple[str, ...]
    numbers: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    parts: tuple[Part, ...]
    best: Part | None
    notes: tuple[str, ...] | None


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
part = st.builds(Part, text, st.none() | floats)
wholes = st.lists(
    st.builds(
        Whole,
        text,
        st.sampled_from(["a", "b"]),
        integers,
        st.booleans(),
        st.none() | floats,
        st.lists(text, max_size=3).map(tuple),
        st.lists(integers, max_size=3).map(tuple),
        st.lists(st.tuples(integers, integers), max_size=2).map(tuple),
        st.lists(part, max_size=3).map(tuple),
        st.none() | part,
        st.none() | st.lists(text, max_size=1).map(tuple),
    ),
    unique_by=lambda row: row.id,
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wholes, st.randoms(use_true_random=False))
def test_any_order_is_the_same_bytes_and_reads_back(tmp_path: Path, whole: list[Whole], random: Any) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    shuffled = list(whole)
    random.shuffle(shuffled)
    assert parquet.write_rows(one, Whole, whole) == len(whole)
    parquet.write_rows(two, Whole, iter(shuffled))
    assert one.read_bytes() == two.read_bytes()
    assert parquet.read_rows(one, Whole) == sorted(whole, key=lambda row: row.id)


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lema.rows import Grade; from lema.compute import parquet\n"
        "rows = [Grade(f'q{i}', 'q', 's', 'correct', None if i % 3 else str(i)) for i in range(20_000)]\n"
        "parquet.write_rows(Path(sys.argv[1]), Grade, rows if sys.argv[2] == 'up' else reversed(rows))\n"
    )
    digests = set()
    for name, order, seed in [("a", "up", "1"), ("b", "down", "2")]:
        path = tmp_path / f"{name}.parquet"
        subprocess.run([sys.executable, "-c", program, path, order], check=True, env={"PYTHONHASHSEED": seed})
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert len(parquet.read_rows(tmp_path / "a.parquet", rows.Grade)) == 20_000


ARTIFACTS = [
    rows.Record,
    rows.Question,
    rows.Sample,
    rows.Grade,
    rows.Correction,
    rows.Verdict,
    rows.Example,
    rows.Answer,
]


@pytest.mark.parametrize("row_type", ARTIFACTS)
def test_every_artifact_can_be_stored(tmp_path: Path, row_type: type) -> None:
    path = tmp_path / "empty.parquet"
    assert parquet.write_rows(path, row_type, []) == 0
    assert parquet.read_rows(path, row_type) == []
    assert parquet.arrow_schema(row_type).names[0] == "id"


def test_nothing_of_the_moment_or_the_machine_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "grades.parquet"
    parquet.write_rows(path, rows.Grade, [rows.Grade("a", "q", "s", "correct", None)])
    assert pq.read_schema(path).metadata is None
    assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize("count", [4, 2 * parquet.ROW_GROUP])  # in one part, and in different ones
def test_duplicate_ids_are_refused_and_leave_no_file(tmp_path: Path, count: int) -> None:
    made = [rows.Grade(f"{n:06}", "q", "s", "correct", None) for n in range(count)]
    with pytest.raises(RunError, match="'000003'"):
        parquet.write_rows(tmp_path / "x.parquet", rows.Grade, [*made, made[3]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
def test_the_collector_of_python_works_as_before(tmp_path: Path, times: int) -> None:
    usual, during = gc.get_threshold(), []

    def made() -> Iterator[rows.Record]:
        for _ in range(times):
            during.append((gc.get_threshold() > usual, gc.get_freeze_count() > 0))
            yield rows.Record("x", "train", "{}")

    with nullcontext() if times == 1 else pytest.raises(RunError):
        parquet.write_rows(tmp_path / "rows.parquet", rows.Record, made())
    assert during == [(True, True)] * times
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0)


def test_a_missing_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Grade\.sampler"):
        parquet.write_rows(tmp_path / "x.parquet", rows.Grade, [rows.Grade("a", "q", None, "correct", None)])  # type: ignore[arg-type]


def test_an_integer_column_refuses_text(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        parquet.write_rows(
            tmp_path / "x.parquet", Whole, [Whole("a", "a", "7", True, None, (), (), (), (), None, None)]
        )  # type: ignore[arg-type]


@dataclass(frozen=True)
class Unstorable:
    id: str
    pair: tuple[int, str]


GRADES = parquet.rows_to_table(rows.Grade, [])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"question_id": ["a"]}), "column id is missing"),
        (pa.table({"id": [1], "question_id": ["q"]}), "column id is int64 or null, not string"),
        (pa.table({name: ["a"] for name in GRADES.column_names}), "column id is string or null, not string"),
        (GRADES.append_column("more", pa.array([], pa.string())), "unknown column more"),
        (GRADES.select(GRADES.column_names[::-1]), "another order"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, table: pa.Table, message: str) -> None:
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(RunError, match=message):
        parquet.read_rows(tmp_path / "other.parquet", rows.Grade)


MADE: list[str] = []


@dataclass(frozen=True)
class Counted:
    id: str

    def __post_init__(self) -> None:
        MADE.append(self.id)


def test_rows_are_read_a_few_at_a_time_and_as_often_as_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 100)
    monkeypatch.setattr(parquet, "BATCH", 30)
    names = [f"{number:04d}" for number in range(1000)]
    parquet.write_rows(tmp_path / "rows.parquet", Counted, map(Counted, names))
    rows = parquet.Rows(tmp_path / "rows.parquet", Counted)
    MADE.clear()
    walk = iter(rows)
    assert [next(walk).id for _ in range(5)] == names[:5]
    assert len(MADE) <= 30
    assert [row.id for row in rows] == names
    assert [row.id for row in walk] == names[5:]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone\.parquet does not exist"):
        parquet.read_rows(tmp_path / "gone.parquet", rows.Grade)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(RunError, match=r"bad\.parquet is not a readable Parquet file"):
        parquet.read_rows(tmp_path / "bad.parquet", rows.Grade)


def test_types_that_cannot_be_stored_are_named() -> None:
    with pytest.raises(TypeError, match="tuples of any length"):
        parquet.arrow_schema(Unstorable)


def at_once(path: Path, row_type: type, rows: list[Any]) -> None:
    """The definition of the canonical bytes: all rows in one table, written in one call."""
    pq.write_table(
        parquet.rows_to_table(row_type, sorted(rows, key=lambda row: row.id)),
        path,
        compression="zstd",
        compression_level=2,
        row_group_size=parquet.ROW_GROUP,
        use_dictionary=True,
        write_statistics=True,
        version="2.6",
        data_page_version="1.0",
        store_schema=False,
    )


@pytest.mark.parametrize("count", [0, 1, parquet.ROW_GROUP - 1, parquet.ROW_GROUP, parquet.ROW_GROUP + 1, 50_000])
def test_sorted_in_parts_is_the_same_bytes(tmp_path: Path, count: int) -> None:
    draw = random.Random(count)
    made = [
        rows.Answer(
            f"q-{n:07}/cot/{n % 3}", f"q-{n:07}", "cot", None if n % 3 else n, "single", n,
            " ".join(draw.choices(["seven", "☃", "12 * 3 = 36"], k=n % 9)), "stop", None, "correct",
            None if n % 5 else str(n), "", n, n,
        )
        for n in range(count)
    ]  # fmt: skip
    at_once(tmp_path / "once.parquet", rows.Answer, made)
    draw.shuffle(made)
    assert parquet.write_rows(tmp_path / "parts.parquet", rows.Answer, iter(made)) == count
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "once.parquet").read_bytes()


@pytest.mark.parametrize("order", ["in order", "one too late", "backwards"])
def test_row_groups_in_any_order_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 50)
    monkeypatch.setattr(parquet, "ROW_GROUPS_A_RUN", 2)
    monkeypatch.setattr(external_sort, "ROWS_A_PIECE", 20)
    made = [
        rows.Example(
            f"x/{n:03}", "lema", "correction", "q", "s", (rows.Message("user", "☃" * (n % 4)),) * (n % 3), f"text {n}",
            ((n, n + 1),) * (n % 2),
        )
        for n in range(230)
    ]  # fmt: skip
    at_once(tmp_path / "once.parquet", rows.Example, made)
    shown = {"in order": made, "one too late": [*made[:70], *made[71:], made[70]], "backwards": made[::-1]}[order]
    if order == "in order":
        monkeypatch.delattr(external_sort.SortedRuns, "add")  # nothing has to wait
    assert parquet.write_rows(tmp_path / "rows.parquet", rows.Example, shown) == len(made)
    assert (tmp_path / "rows.parquet").read_bytes() == (tmp_path / "once.parquet").read_bytes()
    assert parquet.read_rows(tmp_path / "rows.parquet", rows.Example) == made


def test_a_file_is_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    """Else each open stream would hold the whole file, and a stage has several."""
    draw, path = random.Random(1), tmp_path / "records.parquet"
    made = (rows.Record(f"r{number:06d}", "train", draw.randbytes(200).hex()) for number in range(40_000))
    parquet.write_rows(path, rows.Record, made)
    before, most = pa.total_allocated_bytes(), 0
    for _ in parquet.Rows(path, rows.Record):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < path.stat().st_size / 2
