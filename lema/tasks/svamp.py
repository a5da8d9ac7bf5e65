"""SVAMP: 1,000 test questions of one step, varied to catch shallow solvers (Patel et al., arXiv 2103.07191).

A record holds `Body`, `Question`, `Equation`, `Answer` and `Type`, as at https://github.com/arkilpatel/SVAMP. Models
trained on GSM8K are tested on it (LEMA, section 3.1), and answers are compared rounded to two places as there.
"""

import re
from collections.abc import Mapping
from typing import Any

from lema.tasks import Reading, Task
from lema.tasks.numeric import equal_to_places, extract_number, gold_number, join_story
from lema.text.arithmetic import evaluate
from lema.text.records import text_field


def read_svamp(record: Mapping[str, Any]) -> Reading:
    gold = gold_number(text_field(record, "Answer"))
    # The data set spells one type in two ways.
    kind = str(record.get("Type") or "").replace("Divison", "Division")
    rationale = _svamp_rationale(str(record.get("Equation") or ""), gold)
    return Reading(join_story(record, ("Body",), ("Question",)), gold, rationale, {"type": kind} if kind else {})


def _svamp_rationale(equation: str, gold: str) -> str | None:
    """The equation as the only step, "76 - 25 = 51"; None where there is none that gives the gold answer."""
    value = evaluate(equation) if equation else None
    if value is None or not re.search(r"[-+*/]", equation) or not equal_to_places(2)(str(value), gold):
        return None
    bare = equation.replace(".0", "").replace("( ", "(").replace(" )", ")")
    inside = bare.removeprefix("(").removesuffix(")")
    return f"{inside if evaluate(inside) == value else bare} = {gold}"


svamp = Task("svamp", read_svamp, extract_number, equal_to_places(2))
