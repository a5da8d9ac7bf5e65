"""The sampler `import`: existing paths of a file."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

from lema.errors import RunError
from lema.recipe.sampler_schema import ImportSpec
from lema.rows import Question, Sample
from lema.text.record_files import ReadFile
from lema.text.records import text_field
from lema.text.steps import number_steps


def imported_paths(
    train: Iterable[Question], sampler: str, spec: ImportSpec, read_file: ReadFile
) -> Iterator[tuple[str, Sample]]:
    """Paths, each after the gold answer of the question with the same text; those of other questions are left out."""
    asked = {_question_digest(question.text): (question.id, question.gold) for question in train}
    taken: Counter[str] = Counter()
    for place, row in enumerate(read_file(spec.file), start=1):
        where = f"samples: {spec.file}, row {place}"
        found = asked.get(_question_digest(text_field(row, spec.question, where=where)))
        if found is None:
            continue
        path = row.get(spec.path)
        steps = [str(step) for step in path] if isinstance(path, list) else None
        text = number_steps(steps) if steps else text_field(row, spec.path, where=where)
        (name, gold), index = found, taken[found[0]]
        taken[name] += 1
        row_id = f"{name}/{sampler}/{index}"
        yield gold, Sample(row_id, name, sampler, index, text, "stop", None, "import", "", "", 0, 0)
    if not taken:
        raise RunError(f"samples: no row of {spec.file} belongs to a training question of this recipe")


def _question_digest(text: str) -> bytes:
    """Of a text whatever its white space: questions take 16 bytes each."""
    return hashlib.sha256(" ".join(text.split()).encode()).digest()[:16]
