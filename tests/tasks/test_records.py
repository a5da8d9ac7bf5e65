"""What every task says of a record that it cannot read, and that it reads what it writes."""

from typing import Any

import pytest

from lema.tasks import Reading, Task
from lema.tasks.asdiv import asdiv
from lema.tasks.csqa import csqa
from lema.tasks.gsm8k import gsm8k
from lema.tasks.math import math
from lema.tasks.svamp import svamp
from lema.tasks.word_problems import word_problems

CHOICES = {"question": "Q?", "choices": {"label": ["A", "B"], "text": ["bank", "mall"]}, "answerKey": "A"}


@pytest.mark.parametrize(
    ("task", "record", "message"),
    [
        (gsm8k, {"question": "Q?"}, "needs a text in `answer`; the record has: question"),
        (gsm8k, {"question": "", "answer": "#### 5"}, "needs a text in `question`"),
        (gsm8k, {"question": "Q?", "answer": None}, "needs a text in `answer`"),
        (gsm8k, {"question": "Q?", "answer": "5"}, "no line '[#][#][#][#] N'"),
        (gsm8k, {"question": "Q?", "answer": "#### many"}, "'many' is not a number"),
        (gsm8k, {}, "the record has: nothing"),
        (svamp, {"Question": "Q?", "Answer": 1}, "needs a text in `Body`; the record has: Answer, Question"),
        (svamp, {"Body": "B.", "Question": "Q?"}, "needs a text in `Answer`"),
        (svamp, {"Body": "B.", "Question": "Q?", "Answer": "many"}, "'many' is not a number"),
        (asdiv, {"Body": "B.", "Question": "Q?"}, "needs a text in `Answer`; the record has: Body, Question"),
        (csqa, {**CHOICES, "answerKey": "F"}, "`answerKey` is 'F', the choices are A, B"),
        (csqa, {**CHOICES, "answerKey": ""}, "needs a text in `answerKey`"),
        (
            csqa,
            {**CHOICES, "choices": {"label": ["A"], "text": ["x", "y"]}},
            "needs `choices` with a `label` and a `tex",
        ),
        (csqa, {**CHOICES, "choices": None}, "needs `choices`"),
        (csqa, {"answerKey": "A"}, "needs a text in `question`"),
        (math, {"solution": "$\\boxed{1}$"}, "needs a text in `problem`; the record has: solution"),
        (math, {}, "the record has: nothing"),
        (math, {"problem": "Q?"}, "needs a `solution` with the answer in"),
        (math, {"problem": "Q?", "solution": "It is 5."}, "needs a `solution` with the answer in"),
        (word_problems, {"answer": "5"}, "needs a text in `question`"),
        (word_problems, {"question": "Q?", "answer": "five"}, "'five' is not a number"),
    ],
)
def test_unreadable_records_say_what_is_wrong(task: Task, record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.read(record)


@pytest.mark.parametrize("rationale", ["48 / 2 = 24\n24 + 1 = 25", None])
@pytest.mark.parametrize(
    ("task", "gold"),
    [
        *((gsm8k, gold) for gold in ("25", "-3", "0.5", "1/3")),
        *((math, gold) for gold in ("12", "\\frac{3}{4}", "(1, 2]", "x^2 + 1")),
        (word_problems, "2"),
    ],
)
def test_what_it_writes_it_reads(task: Task, rationale: str | None, gold: str) -> None:
    assert task.write is not None
    reading = task.read(task.write(Reading("How many?", gold, rationale)))
    assert (reading.text, reading.gold, reading.rationale) == ("How many?", gold, rationale)
