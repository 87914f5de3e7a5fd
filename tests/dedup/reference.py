"""What the kernels must compute, written the slow way."""

from collections.abc import Sequence

from ray_jobs.dedup.bands import BandPlan
from ray_jobs.files.scripts import UNSPACED


def normalised(text: bytes) -> bytes:
    return b" ".join(text.lower().split())  # bytes.lower() and bytes.split() know ASCII only


def words(text: bytes) -> list[str]:
    spaced = UNSPACED.sub(lambda match: f" {match[0]} ", normalised(text).decode("utf-8", "surrogateescape"))
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
