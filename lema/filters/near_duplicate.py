"""Nearly the same correction once, by MinHash."""

from collections.abc import Iterable, Iterator

from lema.errors import RunError
from lema.filters import Candidate, Finding
from lema.text.ngrams import ngrams, words

PERMUTATIONS, SEED, SHINGLE = 256, 1, 3
# Pairs less alike than about this are not looked at one by one.
FLOOR = 0.5


def near_duplicate(candidates: Iterable[Candidate], *, threshold: float = 0.85) -> Iterator[Finding]:
    """Measures likeness to the nearest earlier correction that was kept, 0 to 1; drops `threshold` and more.

    Likeness is the share of runs of three words that two texts have in common (Jaccard), the text being question and
    whole solution; MinHash with 256 permutations estimates it to about 0.03, and locality-sensitive hashing finds the
    pairs to compare. What is less than half alike measures 0.
    Replies without a solution are not judged. MinHash: Broder 1997, by the library datasketch.
    """
    from datasketch import LeanMinHash, MinHash, MinHashLSH  # slow to import, for those who only check a recipe

    if not 0 < threshold <= 1:
        raise RunError(f"verdicts: near_duplicate: threshold is {threshold:g}, and needs to be above 0, at most 1")
    index = MinHashLSH(threshold=min(FLOOR, threshold), num_perm=PERMUTATIONS)
    kept: list[tuple[str, LeanMinHash]] = []
    for candidate in candidates:
        if not candidate.correction.solution:
            yield Finding(None)
            continue
        text = words(" ".join([candidate.question.text, *candidate.whole_solution]))
        minhash = MinHash(num_perm=PERMUTATIONS, seed=SEED)
        minhash.update_batch([" ".join(gram).encode() for gram in sorted(ngrams(text, SHINGLE) or {text})])
        sketch = LeanMinHash(minhash)  # without the permutations, which take twice the room of the hashes
        alike = [(round(float(sketch.jaccard(kept[at][1])), 4), -at) for at in index.query(sketch)]
        value, place = max(alike, default=(0.0, 0))
        reason = f"{value:.0%} like {kept[-place][0]}, limit is {threshold:.0%}" if value >= threshold else None
        yield Finding(value, reason)
        if reason is None:
            index.insert(len(kept), sketch)
            kept.append((candidate.correction.id, sketch))
