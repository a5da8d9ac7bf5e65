"""ASDiv: 2,305 test questions of many types and grades (Miao et al., arXiv 2106.15772).

A record holds `Body`, `Question`, `Answer`, `Formula`, `Solution-Type` and `Grade`, named as in the data set's XML at
https://github.com/chaochun/nlu-asdiv-dataset, or in small letters as on the hub. LEMA (section 3.1) keeps the 2,084
whose answer, without a unit in brackets, is one number, and compares rounded to two places.
"""

import re
from collections.abc import Mapping
from typing import Any

from lema.tasks import Reading, Task
from lema.tasks.numeric import equal_to_places, extract_number, gold_number, join_story
from lema.text.records import text_field


def _answer_without_unit(record: Mapping[str, Any]) -> str:
    return re.sub(r"\([^()]*\)", "", text_field(record, "Answer", "answer")).strip()


def counts_asdiv(record: Mapping[str, Any]) -> bool:
    """Answers such as "7:5" and "2; 3" are left out. A record without an answer is for `read` to refuse."""
    try:
        answer = _answer_without_unit(record)
    except ValueError:
        return True
    try:
        float(answer)
    except ValueError:
        return False
    return True


def read_asdiv(record: Mapping[str, Any]) -> Reading:
    gold = gold_number(_answer_without_unit(record))
    formula = record.get("Formula") or record.get("formula")
    rationale = str(formula).strip() if formula and "r" not in str(formula) else None
    fields = {"type": ("Solution-Type", "solution_type"), "grade": ("Grade", "@Grade", "grade")}
    strata = {name: str(record[own]) for name, owns in fields.items() for own in owns if record.get(own)}
    return Reading(join_story(record, ("Body", "body"), ("Question", "question")), gold, rationale, strata)


asdiv = Task("asdiv", read_asdiv, extract_number, equal_to_places(2), counts=counts_asdiv)
