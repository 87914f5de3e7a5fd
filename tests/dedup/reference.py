"""What the kernels must compute, written the slow way."""

import re
from collections.abc import Sequence

from ray_jobs.dedup.bands import BandPlan

# Characters that are words: kana and ideographs, Thai, Lao, Myanmar, Khmer.
_UNSPACED = "[\u3000-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"


def normalised(text: bytes) -> bytes:
    return b" ".join(text.lower().split())  # bytes.lower() and bytes.split() know ASCII only


def words(text: bytes) -> list[str]:
    spaced = re.sub(_UNSPACED, lambda match: f" {match[0]} ", normalised(text).decode("utf-8", "surrogateescape"))
    return [word for word in spaced.split(" ") if word]


def shingles(text: bytes, width: int = 5) -> set[tuple[str, ...]]:
    found = words(text)
    if not found:
        return set()
    used = min(width, len(found))
    return {tuple(found[i : i + used]) for i in range(len(found) - used + 1)}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def duplicates(
    signatures: Sequence[Sequence[int]], sets: Sequence[set], plan: BandPlan, threshold: float
) -> dict[int, int]:
    """The rule of removal, every pair looked at: dropped document -> first kept document that it duplicates."""
    dropped: dict[int, int] = {}
    for document in range(len(sets)):
        for earlier in range(document):
            if earlier in dropped:
                continue
            shared = any(
                list(signatures[document][b * plan.rows : (b + 1) * plan.rows])
                == list(signatures[earlier][b * plan.rows : (b + 1) * plan.rows])
                for b in range(plan.num_bands)
            )
            if shared and jaccard(sets[document], sets[earlier]) >= threshold:
                dropped[document] = earlier
                break
    return dropped
