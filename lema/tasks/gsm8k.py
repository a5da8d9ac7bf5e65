"""GSM8K: 7,473 training and 1,319 test questions of grade-school mathematics (Cobbe et al., arXiv 2110.14168).

A record holds `question` and `answer`: a rationale, one step a line, with calculator annotations such as
`<<48/2=24>>`, and a last line `#### 72`. See https://github.com/openai/grade-school-math.
"""

from collections.abc import Mapping
from typing import Any

from lema.tasks import Reading, Task
from lema.tasks._numeric import ANNOTATION, equal, extract, plain


def _read(record: Mapping[str, Any]) -> Reading:
    question, answer = (_text(record, field) for field in ("question", "answer"))
    rationale, marker, gold = answer.rpartition("####")
    if not marker:
        raise ValueError("`answer` has no line '#### N' with the gold answer")
    value = plain(gold)
    if value is None:
        raise ValueError(f"the gold answer {gold.strip()[:40]!r} is not a number")
    lines = [" ".join(line.split()) for line in ANNOTATION.sub("", rationale).splitlines() if line.strip()]
    return Reading(question, value, "\n".join(lines) or None, {"steps": str(len(lines))} if lines else {})


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        fields = ", ".join(sorted(map(str, record))) or "nothing"
        raise ValueError(f"needs a text in `{field}`; the record has: {fields}")
    return value.strip()


def _write(reading: Reading) -> dict[str, Any]:
    rationale = f"{reading.rationale}\n" if reading.rationale else ""
    return {"question": reading.text, "answer": f"{rationale}#### {reading.gold}"}


gsm8k = Task("gsm8k", _read, extract, equal, write=_write)
