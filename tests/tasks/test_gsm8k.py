from collections.abc import Callable

from lema.tasks import Reading
from lema.tasks.gsm8k import gsm8k


def test_annotations_go_and_the_gold_answer_is_a_plain_number() -> None:
    answer = "He has 48/2 = <<48/2=24>>24.\n\nSo  1,000+80=<<1000+80=1080>>\n#### $1,080 "
    reading = gsm8k.read({"question": " How many? ", "answer": answer})
    assert reading == Reading("How many?", "1080", "He has 48/2 = 24.\nSo 1,000+80=", {"steps": "2"})


def test_no_rationale_is_none() -> None:
    assert gsm8k.read({"question": "Q?", "answer": "#### 5"}) == Reading("Q?", "5", None)


def test_every_question_of_the_real_training_set_is_read(real_records: Callable[[str], list[dict[str, str]]]) -> None:
    records = real_records("gsm8k/train.jsonl")
    readings = [gsm8k.read(record) for record in records]
    assert len(readings) == 7473
    for record, reading in zip(records, readings, strict=True):
        assert gsm8k.extract(record["answer"]) == reading.gold
        assert gsm8k.extract(f"{reading.rationale}\nThe answer is {reading.gold}.") == reading.gold
        assert reading.rationale
        assert "<<" not in reading.rationale
        assert "####" not in reading.rationale
