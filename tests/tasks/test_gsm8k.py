import json
import os
from pathlib import Path

import pytest

from lema.tasks import Reading
from lema.tasks.gsm8k import gsm8k


def test_annotations_go_and_the_gold_answer_is_a_plain_number() -> None:
    answer = "He has 48/2 = <<48/2=24>>24.\n\nSo  1,000+80=<<1000+80=1080>>\n#### $1,080 "
    reading = gsm8k.read({"question": " How many? ", "answer": answer})
    assert reading == Reading("How many?", "1080", "He has 48/2 = 24.\nSo 1,000+80=", {"steps": "2"})


@pytest.mark.parametrize("rationale", ["48 / 2 = 24\n24 + 1 = 25", None])
@pytest.mark.parametrize("gold", ["25", "-3", "0.5", "1/3"])
def test_what_it_writes_it_reads(rationale: str | None, gold: str) -> None:
    assert gsm8k.write is not None
    reading = gsm8k.read(gsm8k.write(Reading("How many?", gold, rationale)))
    assert (reading.text, reading.gold, reading.rationale) == ("How many?", gold, rationale)


def test_no_rationale_is_none() -> None:
    assert gsm8k.read({"question": "Q?", "answer": "#### 5"}) == Reading("Q?", "5", None)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "Q?"}, "needs a text in `answer`; the record has: question"),
        ({"question": "", "answer": "#### 5"}, "needs a text in `question`"),
        ({"question": "Q?", "answer": None}, "needs a text in `answer`"),
        ({"question": "Q?", "answer": "5"}, "no line '#### N'"),
        ({"question": "Q?", "answer": "#### many"}, "'many' is not a number"),
        ({}, "the record has: nothing"),
    ],
)
def test_unreadable_records_say_what_is_wrong(record: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("#", "[#]")):
        gsm8k.read(record)


def test_every_question_of_the_real_training_set_is_read() -> None:
    folder = Path(os.environ.get("LEMA_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
    file = folder / "gsm8k/train.jsonl"
    if not file.exists():
        pytest.skip(f"no GSM8K at {file}; set LEMA_TEST_DATA")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    readings = [gsm8k.read(record) for record in records]
    assert len(readings) == 7473
    for record, reading in zip(records, readings, strict=True):
        assert gsm8k.extract(record["answer"]) == reading.gold
        assert gsm8k.extract(f"{reading.rationale}\nThe answer is {reading.gold}.") == reading.gold
        assert reading.rationale
        assert "<<" not in reading.rationale
        assert "####" not in reading.rationale
