"""What a student trained from scratch reads: problems, and, where the recipe says so, corrections of spoilt ones."""

import itertools

from transformers import AutoTokenizer

from lema.recipe.basic_types import Prompt
from lema.recipe.training_schema import PretrainCorrectionsSpec
from lema.tasks.word_problems import word_problems
from lema.train.base import BaseSpec, write_base
from lema.train.batching import IGNORED
from lema.train.pretrain import pretrain_batches, pretrain_texts

from .conftest import TINY

CORRECTION = Prompt(
    user="{{ question }}\nThis is wrong:\n{{ path }}",
    assistant="Incorrect Step: {{ incorrect_step }}.\n{{ explanation }}\n"
    "{% for line in solution %}\n{{ line }}\n{% endfor %}",
)


def taken(count=200, seed=0, **corrections):
    spec = TINY.model_copy(update={"seed": seed, "options": {"seed": 5, "steps": (1, 2), "largest": 50}})
    if corrections:
        corrections.setdefault("format", CORRECTION)
        spec = spec.model_copy(update={"corrections": PretrainCorrectionsSpec(**corrections)})
    return list(itertools.islice(pretrain_texts(spec), count))


def test_a_share_of_the_problems_comes_as_corrections_and_the_others_stay():
    plain, mixed = taken(), taken(share=0.3)
    corrections = [at for at, text in enumerate(mixed) if not text.whole]
    assert 40 <= len(corrections) <= 80
    assert all(text == plain[at] for at, text in enumerate(mixed) if at not in corrections)
    for at in corrections:
        question, answer = plain[at].prompt.strip(), plain[at].reply.splitlines()[-1]
        assert mixed[at].prompt.startswith(f"{question}\nThis is wrong:\nStep 1: ")
        assert mixed[at].prompt.splitlines()[-1].partition(": ")[2] != answer
        assert mixed[at].reply.startswith("Incorrect Step: ")
        assert mixed[at].reply.endswith(answer)


def test_corrections_are_drawn_by_seed():
    assert taken(50, share=0.0) == taken(50)
    assert taken(50, share=0.5) == taken(50, share=0.5) != taken(50, seed=1, share=0.5)


def test_only_errors_that_are_asked_for_are_made():
    slips = [text for text in taken(60, share=1.0, errors=("arithmetic slip",)) if not text.whole]
    assert slips
    # `reference` says of a slip what the result is; of a wrong operation or operand, what is needed.
    assert all("says" in text.reply and "what is needed is" not in text.reply for text in slips)


def test_a_wrong_path_is_read_and_not_learnt(base):
    tokenizer = AutoTokenizer.from_pretrained(base.location)
    spec = TINY.model_copy(update={"context": 512})
    texts = taken(64, share=0.5)
    by_ids = {tuple(tokenizer(text.prompt)["input_ids"] + tokenizer(text.reply)["input_ids"]): text for text in texts}
    rows = [row for batch in pretrain_batches(iter(texts), tokenizer, spec) for row in batch]
    kinds = set()
    for row in rows:
        text = by_ids[tuple(row["input_ids"][:-1])]
        read = len(tokenizer(text.prompt)["input_ids"])
        learnt = 0 if text.whole else read
        assert row["labels"] == [IGNORED] * learnt + row["input_ids"][learnt:]
        kinds.add(text.whole)
    assert kinds == {True, False}


def test_a_wrong_step_that_a_format_writes_out_is_not_learnt_either(base):
    tokenizer = AutoTokenizer.from_pretrained(base.location)
    inline = Prompt(user="{{ question }}", assistant="{{ wrong }}\nNo: {{ after | first }}")
    texts = taken(count=64, share=1.0, format=inline)
    batch = next(pretrain_batches(iter(texts), tokenizer, TINY.model_copy(update={"batch": 60})))
    spoilt = {text.prompt + text.reply: text.reply.partition("\nNo: ") for text in texts if not text.whole}
    seen = 0
    for row in batch:
        learnt = tokenizer.decode([token for token in row["labels"] if token != IGNORED], skip_special_tokens=True)
        if parts := spoilt.get(tokenizer.decode(row["input_ids"], skip_special_tokens=True)):
            assert learnt == "\nNo: " + parts[2]
            seen += 1
    assert seen > 30


def test_questions_that_are_learnt_from_are_never_test_questions():
    questions = {text.prompt.partition("\nThis is wrong:")[0].strip() for text in taken(share=0.5)}
    records = itertools.islice(word_problems.generate(seed=5, steps=(1, 2), largest=50), 400)
    tested = {record["question"] for part, record in records if part == "test"}
    assert tested
    assert not questions & tested


def test_a_student_learns_from_corrections_too(tmp_path):
    corrections = PretrainCorrectionsSpec(share=0.5, format=CORRECTION)
    spec = TINY.model_copy(update={"corrections": corrections, "steps": 3, "batch": 4})
    write_base(BaseSpec(pretrain=spec, chat=False), tmp_path, tmp_path)
    assert (tmp_path / "base.json").is_file()
