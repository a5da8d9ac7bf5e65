"""Numbers that must agree: questions with the records of their source, targets with what there is to reach them."""

from collections.abc import Iterator

from lema.check.external_files import Found
from lema.errors import Problem
from lema.recipe.load import Draft
from lema.recipe.messages import problem_at
from lema.recipe.sampler_schema import ImportSampler, ModelSampler, SamplesSpec


def count_rules(draft: Draft) -> Iterator[Found]:
    """There are questions, dev questions among them if they are to be answered, and no more than the source has
    records."""
    source, questions, answers = (draft.sections[key] for key in ("source", "questions", "answers"))
    for split, purpose in (("train", "to learn from"), ("test", "to compare the arms on")):
        there, asked = (getattr(one, split) if one else None for one in (source, questions))
        if there is not None and asked is not None and asked > there:
            yield Found(("questions", split), f"{asked} questions, but `source.{split}` keeps {there} records")
        for section, value in (("source", there), ("questions", asked)):
            if value == 0:
                yield Found((section, split), f"needs at least 1: there would be nothing {purpose}")
    if source and source.test_from == "train" and source.test is None:
        yield Found(("source",), "with `test_from: train`, say how many `test` records to take", key=True)
    if source and source.file and source.test_from != "train" and "{split}" not in source.file:
        message = "one file has no test split: write {split} for train and test in its name, or say `test_from: train`"
        yield Found(("source", "file"), message)
    if not questions:
        return
    if answers and answers.dev and not questions.dev:
        yield Found(("answers", "dev"), "there are no dev questions; say how many in `questions.dev`")
    learnt = 1 if questions.train is None else questions.train
    if source and source.train is not None and learnt <= source.train < learnt + questions.dev:
        message = f"{questions.dev} questions beside {learnt} to learn from, but `source.train` keeps {source.train}"
        yield Found(("questions", "dev"), f"{message} records")


def wrong_path_rules(draft: Draft) -> Iterator[Found]:
    """Samplers that stop ask a model, and could make more wrong paths than are wanted."""
    samples, questions = draft.sections["samples"], draft.sections["questions"]
    if not samples or not samples.want:
        return
    want, path = samples.want, ("samples", "want")
    stopping = [sampler for name, sampler in samples.samplers.items() if want.counts(name)]
    if not any(isinstance(sampler, ModelSampler) for sampler in stopping):
        yield Found(path, "stops nobody: none of its samplers asks a model", key=True)
        return
    most, train = _most(samples, want.samplers), questions.train if questions else None
    if most is not None and want.per_question is not None and want.per_question > most:
        yield Found((*path, "per_question"), f"{want.per_question} wrong paths, but there are at most {most} paths")
    if most is not None and want.in_all is not None and train is not None and want.in_all > most * train:
        yield Found((*path, "in_all"), f"{want.in_all} wrong paths, but there are at most {_paths(most, train)}")


def target_rules(draft: Draft) -> Iterator[Found]:
    """As many corrections can be accepted as are wanted."""
    corrections, samples, questions = (draft.sections[key] for key in ("corrections", "samples", "questions"))
    if not corrections:
        return
    want, limit, tries = corrections.want, corrections.max_candidates, corrections.tries
    most = _most(samples, corrections.samplers) if samples else None
    if limit is not None and want is None:
        message = "limits the search for a target: say how many accepted corrections you `want`"
        yield Found(("corrections", "max_candidates"), message, key=True)
    elif limit is not None and limit // tries * tries < want:
        of = f" with {tries} tries a path" if tries > 1 else ""
        message = f"{limit} candidates{of} cannot give the {want} accepted corrections that are wanted"
        yield Found(("corrections", "max_candidates"), message)
    if (
        want
        and most is not None
        and questions
        and questions.train is not None
        and most * questions.train * tries < want
    ):
        message = f"{want} accepted corrections, but there are at most {_paths(most, questions.train)} to correct"
        yield Found(("corrections", "want"), message)


def _most(samples: SamplesSpec, names: tuple[str, ...] | None) -> int | None:
    """Paths of one question that samplers can make; None where a file may hold any number."""
    found = [sampler for name, sampler in samples.samplers.items() if names is None or name in names]
    paths = [sampler.paths for sampler in found if not isinstance(sampler, ImportSampler)]
    return sum(paths) if len(paths) == len(found) else None


def _paths(a_question: int, questions: int) -> str:
    return f"{a_question * questions} paths ({questions} questions, {a_question} each)"


def stopping_notes(draft: Draft) -> Iterator[Problem]:
    """Arms that learn from right paths of samplers that stop: there are fewer of them."""
    samples, mix = draft.sections["samples"], draft.sections["mix"]
    want = samples.want if samples else None
    for arm, one in mix.arms.items() if mix and want else ():
        for at, name in enumerate(one.cot.samplers if one.cot else ()):
            if samples and want and isinstance(samples.samplers.get(name), ModelSampler) and want.counts(name):
                message = f"{name} stops where there are enough wrong paths, so it makes fewer right ones, too; "
                message += "`samples.want.samplers` names those that stop"
                yield problem_at(draft.tree, ("mix", "arms", arm, "cot", "samplers", at), message, key=False)
