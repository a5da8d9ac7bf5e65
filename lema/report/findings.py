"""The report's findings in plain words: what was seen, how sure that is, and what could not have been seen."""

from collections.abc import Mapping
from typing import Any

EQUAL_TOKENS = 0.01  # share of tokens by which two arms may differ and pass for equal
SMALL_TEST_SET = 200  # test questions; with fewer, differences of ten points are often out of reach


def headline(facts: Mapping[str, Any]) -> str:
    """The answer to the question of the whole pipeline, in one line."""
    lead = facts["lead"]
    if lead is None:
        return "No arm learnt from corrections"
    points = f"{abs(lead['difference']) * 100:.1f} points"
    return {
        "helped": f"Corrections helped: {points} more than {lead['than']}",
        "hurt": f"Corrections hurt: {points} less than {lead['than']}",
        "unclear": "No clear difference between corrections and none",
    }[lead["verdict"]]


def finding_paragraphs(facts: Mapping[str, Any]) -> list[str]:
    """The paragraphs under the headline, each a few sentences."""
    lead, said = facts["lead"], []
    if lead is not None:
        said.append(f"{_effect_sentence(facts, lead)} {_uncertainty(facts, lead)}".strip())
        said += [text for text in (_row_counts(lead), _other_controls(facts, lead)) if text]
    said += [text for text in (_fine_tuning(facts), facts["targets"], _cautions(facts)) if text]
    return said


def method_notes(facts: Mapping[str, Any]) -> dict[str, str]:
    """How the intervals and columns came about: `share`, `difference` and `columns` of comparisons, and `probe`."""
    level, many = f"{100 * facts['confidence']:g}%", facts["trainings"] > 1
    wilson = f"Wilson’s {level} interval" + (" for the questions and seeds that there are" if many else "")
    over = "a t-test over both questions and seeds" if many else "a paired bootstrap over questions"
    test = "the same t-test" if many else "exact McNemar test"
    won = (
        "questions that the first, or the second model answers correctly more often"
        if many
        else "questions that only the first, or only the second model answers correctly"
    )
    return {
        "share": wilson,
        "difference": f"the {level} interval of {over}",
        "columns": (
            f"p: {test}; corrected by Holm for all {len(facts['pairs'])} comparisons. Won and lost: {won}. "
            f"Detectable: the smallest true difference that the test finds {facts['power']:.0%} of the time; smaller "
            "ones may exist and not be seen."
        ),
        "probe": (
            "Perplexity of the gold rationale and of the base’s own wrong answer, on test questions that the base "
            f"gets wrong; {level} interval of a t-test over questions. The base finds its own words likely, so compare "
            "the arms."
        ),
    }


def points(share: float, sign: bool = False) -> str:
    """A share in percentage points, with a true minus sign."""
    return f"{share * 100:{'+' if sign else ''}.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def probability(p: float) -> str:
    """A p-value to as many digits as matter."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _effect_sentence(facts: Mapping[str, Any], lead: Mapping[str, Any]) -> str:
    level = f"{facts['confidence']:.0%} interval {points(lead['low'], True)} to {points(lead['high'], True)}"
    figures = f"{level}, p {_equals(lead['p'])}"
    if len(facts["pairs"]) > 1:
        figures += f", corrected for {len(facts['pairs'])} comparisons p {_equals(lead['holm'])}"
    many = facts["trainings"] > 1
    average = f"On average over {facts['trainings']} trainings, " if many else ""
    if lead["difference"] == 0:
        return (
            f"{average}{lead['arm']} and {lead['than']} answer equally many of {facts['tests']} test questions "
            f"({figures})."
        )
    won = f"{lead['won']} question{'s' * (lead['won'] != 1)}"
    told = (
        f"{won} that {lead['arm']} gets right more often against {lead['lost']} that {lead['than']} does"
        if many
        else f"{won} that only {lead['arm']} gets right against {lead['lost']} that only {lead['than']} does"
    )
    return (
        f"{average}{lead['arm']} answers {points(abs(lead['difference']))} percentage points "
        f"{'more' if lead['difference'] > 0 else 'fewer'} of the {facts['tests']} test questions correctly than "
        f"{lead['than']} ({figures}): {told}."
    )


def _equals(p: float) -> str:
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def _uncertainty(facts: Mapping[str, Any], lead: Mapping[str, Any]) -> str:
    if lead["verdict"] != "unclear":
        return ""
    if lead["detectable"] >= 1:
        return "So few questions cannot tell any difference from chance."
    fits = f"true differences from {points(lead['low'], True)} to {points(lead['high'], True)} points fit these answers"
    return (
        f"That is no evidence of equality: {fits}, and only one of about {points(lead['detectable'])} points or more "
        f"would be found {facts['power']:.0%} of the time."
    )


def _row_counts(lead: Mapping[str, Any]) -> str:
    if lead["than_is_base"]:
        return (
            f"No arm learnt without corrections, so {lead['arm']} is compared with the base; what corrections add to "
            "chain of thought alone was not measured."
        )
    ours, theirs = lead["tokens"], lead["than_tokens"]
    if ours and theirs and abs(ours - theirs) <= EQUAL_TOKENS * max(ours, theirs):
        return f"Both learnt from equally many tokens: {lead['arm']} from {ours:,}, {lead['than']} from {theirs:,}."
    if lead["more_rows"] == 0:
        return "Both learnt from equally many rows."
    more = "more" if lead["more_rows"] > 0 else "fewer"
    return (
        f"{lead['arm']} learnt from {abs(lead['more_rows']):,} {more} rows than {lead['than']}; rows alone may account "
        f"for a difference. An arm of equal size (rows: {{match: {lead['arm']}}}) tells the two apart."
    )


def _other_controls(facts: Mapping[str, Any], lead: Mapping[str, Any]) -> str:
    """The lead's arm against the other arms without corrections: equal rows may say one thing, equal tokens another."""
    others = [row["arm"] for row in facts["arms"][1:] if not row["corrections"] and row["arm"] != lead["than"]]
    pairs = {frozenset((pair["arm"], pair["than"])): pair for pair in facts["pairs"]}
    said = []
    for other in others:
        pair = pairs[frozenset((lead["arm"], other))]
        ahead = pair["difference"] if pair["arm"] == lead["arm"] else -pair["difference"]
        by = (
            f"{points(abs(ahead))} points {'more' if ahead > 0 else 'fewer'} than {other}"
            if ahead
            else f"as many as {other}"
        )
        said.append(f"{by} (corrected p {_equals(pair['holm'])})")
    return f"Beside the other arms without corrections, {lead['arm']} answers {', '.join(said)}." if said else ""


def _fine_tuning(facts: Mapping[str, Any]) -> str:
    base, *arms = facts["arms"]
    if not arms:
        return ""
    best = max(arms, key=lambda row: row["accuracy"])
    return (
        f"The base answers {base['accuracy']:.1%} of the questions correctly; the best fine-tuned arm, {best['arm']}, "
        f"{best['accuracy']:.1%}."
    )


def _cautions(facts: Mapping[str, Any]) -> str:
    said = []
    if facts["tests"] < SMALL_TEST_SET:
        said.append(f"The test set is small ({facts['tests']} questions), so every interval here is wide.")
    if len(facts["pairs"]) > 1:
        said.append(
            f"What counts as a finding is the p-value corrected for all {len(facts['pairs'])} comparisons (Holm); the "
            "intervals are of single comparisons."
        )
    if facts["trainings"] == 1:
        said.append("Every arm was trained once: how much a different seed would change is not measured here.")
    else:
        few = "; two say little of how much that is" if facts["trainings"] == 2 else ""
        said.append(
            f"Every arm was trained with {facts['trainings']} seeds, and what they differ by is in the intervals{few}."
        )
    if facts["unchecked"]:
        said.append("Contamination is off: nobody checked whether corrections hold questions of the test set.")
    failed = [f"{row['outcomes']['failed']} of {row['arm']}" for row in facts["arms"] if row["outcomes"]["failed"]]
    if failed:
        said.append(f"Failed requests count as wrong: {', '.join(failed)}.")
    return " ".join(said)
