"""GSM8K: 7,473 training and 1,319 test questions of grade-school mathematics (Cobbe et al., arXiv 2110.14168).

A record holds `question` and `answer`: a rationale, one step a line, with calculator annotations such as
`<<48/2=24>>`, and a last line `#### 72`. See https://github.com/openai/grade-school-math.
"""

from collections.abc import Mapping
from typing import Any

from lema.tasks import Reading, Task
from lema.tasks.numeric import equal_numbers, extract_number, gold_number
from lema.text.numbers import ANNOTATION
from lema.text.records import text_field


def read_gsm8k(record: Mapping[str, Any]) -> Reading:
    question, answer = (text_field(record, field) for field in ("question", "answer"))
    rationale, marker, gold = answer.rpartition("####")
    if not marker:
        raise ValueError("`answer` has no line '#### N' with the gold answer")
    lines = [" ".join(line.split()) for line in ANNOTATION.sub("", rationale).splitlines() if line.strip()]
    return Reading(question, gold_number(gold), "\n".join(lines) or None, {"steps": str(len(lines))} if lines else {})


def write_gsm8k(reading: Reading) -> dict[str, Any]:
    rationale = f"{reading.rationale}\n" if reading.rationale else ""
    return {"question": reading.text, "answer": f"{rationale}#### {reading.gold}"}


gsm8k = Task("gsm8k", read_gsm8k, extract_number, equal_numbers, write=write_gsm8k)
