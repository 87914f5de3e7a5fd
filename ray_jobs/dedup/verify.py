"""Which candidates are duplicates: the rule by which documents are removed.

Documents are taken in their order. One is dropped if, and only if, some earlier *kept* document

- has the same text, by its 128-bit hash (rule "exact"), or
- has the same URL, by its 128-bit hash ("url"), or
- shares a band with it, and the Jaccard similarity of their shingle sets is at least the threshold ("minhash"; a
  document without a word has no set and is near to none, whatever the threshold: it is a copy of the first such one,
  by its empty text), or
- has a SimHash that differs in few enough bits ("simhash", where the spec asks for it);

it is named a duplicate of the first such document. So every dropped document has a kept one that is truly like it,
however long the chains in its component are; the result depends on no number of workers or machines; and documents that
are appended later, in this crawl or in another, change no earlier decision.

The similarity is estimated from the signatures. Pairs within three standard errors of the threshold are in doubt, and
are decided by their sets; so a pair at the threshold is decided wrongly by its estimate about once in 400.

In each band a document is compared with the first `max_bucket` kept documents alone: those are settled for good when
later ones come, so the bound, too, makes no difference between one crawl and many.
"""

from dataclasses import dataclass, replace

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.dedup.minhash import Offsets, has_shingles

STANDARD_ERRORS = 3.0
KEPT, EXACT, URL, MINHASH, SIMHASH = range(5)
RULES = ("", "exact", "url", "minhash", "simhash")


@dataclass(frozen=True)
class Members:
    """n documents in their order."""

    signed: npt.NDArray[np.uint32]
    """Signatures [n, num_permutations]."""
    exact: npt.NDArray[np.uint64]
    """Hashes of the texts [n, 2]."""
    url: npt.NDArray[np.uint64]
    """Hashes of the URLs [n, 2]; zeros where there is none."""
    fixed: npt.NDArray[np.bool_]
    """[n] Of earlier crawls, where they were kept."""
    simhash: npt.NDArray[np.uint64]
    """[n] Read where there are bands of SimHash."""


@dataclass(frozen=True)
class Doubt:
    """Numbers of agreeing permutations: from `least` on a pair may be duplicates, from `sure` on it is one."""

    least: int
    sure: int


@dataclass(frozen=True)
class Verdicts:
    rule: npt.NDArray[np.int8]
    """[n] KEPT, EXACT, URL, MINHASH or SIMHASH."""
    duplicate_of: npt.NDArray[np.int64]
    """[n] Index of the kept document that each duplicates, -1 where it is kept itself."""
    similarity: npt.NDArray[np.float32]
    """[n] With that document: estimated or exact where the rule is MINHASH, the share of equal bits where it is
    SIMHASH, 1 where it is EXACT, else 0."""
    by_sets: npt.NDArray[np.bool_]
    """[n] Whether the similarity is exact."""
    num_estimated: int
    """Pairs whose signatures were compared."""
    num_compared: int
    """Pairs whose sets were compared."""


@dataclass(frozen=True)
class Buckets:
    """Documents by the bands they share, b bands."""

    order: npt.NDArray[np.int64]
    """[b, n] Documents, those of an equal key beside one another and ascending."""
    starts: npt.NDArray[np.int64]
    """[b, n] Where the bucket of each document begins in `order`."""
    num_minhash: int
    """Bands of MinHash; those that follow are SimHash's."""


def doubt(jaccard: float, num_permutations: int) -> Doubt:
    error = (jaccard * (1 - jaccard) / num_permutations) ** 0.5
    low, high = ((jaccard + sign * STANDARD_ERRORS * error) * num_permutations for sign in (-1, 1))
    return Doubt(int(np.floor(low)), int(np.ceil(high)))


def buckets(keys: npt.NDArray[np.uint64], num_minhash: int) -> Buckets:
    """Of documents with these keys, uint64 [b, n]."""
    order, starts = np.empty(keys.shape, dtype=np.int64), np.empty(keys.shape, dtype=np.int64)
    for band in range(len(keys)):
        order[band] = np.argsort(keys[band], kind="stable")
        _bucket_starts(keys[band], order[band], starts[band])
    return Buckets(order, starts, num_minhash)


def doubtful_fixed(members: Members, buckets: Buckets, doubt: Doubt, max_bucket: int) -> npt.NDArray[np.bool_]:
    """[n] Documents of earlier crawls whose sets are needed: some new document's estimate with them is in doubt."""
    found = np.zeros(len(members.fixed), dtype=np.bool_)
    minhash = slice(buckets.num_minhash)
    # A document without a word is near to none, and one of an earlier document's text is its copy whatever it is near.
    compared = has_shingles(members.signed) & ~members.fixed[equal_rows(members.exact)]
    _doubtful_fixed(
        members.signed,
        members.fixed,
        compared,
        buckets.order[minhash],
        buckets.starts[minhash],
        doubt.least,
        doubt.sure,
        max_bucket,
        found,
    )
    return found


def find_duplicates(
    members: Members,
    buckets: Buckets,
    shingles: npt.NDArray[np.uint32],
    shingle_offsets: Offsets,
    doubt: Doubt,
    jaccard: float,
    max_bucket: int,
    simhash_bits: int = 0,
) -> Verdicts:
    """Applies the rule to documents in their order.

    Args:
        shingles, shingle_offsets: their sets, sorted (`minhash.shingle_sets`); of fixed documents, those that
            `doubtful_fixed` names.
        simhash_bits: most bits that differ, where there are buckets of SimHash.
    """
    num_documents = len(members.fixed)
    verdicts = Verdicts(
        np.zeros(num_documents, dtype=np.int8),
        np.full(num_documents, -1, dtype=np.int64),
        np.zeros(num_documents, dtype=np.float32),
        np.zeros(num_documents, dtype=np.bool_),
        0,
        0,
    )
    num_estimated, num_compared = _apply(
        members.signed,
        members.fixed,
        has_shingles(members.signed),
        equal_rows(members.exact),
        np.where(members.url.any(axis=1), equal_rows(members.url), -1),
        shingles,
        shingle_offsets,
        members.simhash,
        simhash_bits,
        buckets.order.copy(),
        buckets.starts,
        buckets.num_minhash,
        doubt.least,
        doubt.sure,
        jaccard,
        max_bucket,
        verdicts.rule,
        verdicts.duplicate_of,
        verdicts.similarity,
        verdicts.by_sets,
    )
    return replace(verdicts, num_estimated=num_estimated, num_compared=num_compared)


def equal_rows(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each of n hashes [n, 2] the first row with the same hash: int64 [n]."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return first


@numba.njit(cache=True)
def _bucket_starts(
    keys: npt.NDArray[np.uint64], order: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> None:  # pragma: no cover
    """For each document where its bucket (documents of an equal key) begins in `order`."""
    start = 0
    for i in range(len(order)):
        if keys[order[i]] != keys[order[start]]:
            start = i
        starts[order[i]] = start


@numba.njit(cache=True)
def _jaccard(shingles: npt.NDArray[np.uint32], a: int, a_end: int, b: int, b_end: int) -> float:  # pragma: no cover
    size = (a_end - a) + (b_end - b)
    if size == 0:
        return 0.0  # two documents without a word: equal ones were found by their exact hash
    common = 0
    while a < a_end and b < b_end:
        one, other = shingles[a], shingles[b]
        common += one == other
        a += one <= other
        b += other <= one
    return common / (size - common)


@numba.njit(cache=True, inline="always")
def _agreeing(signed: npt.NDArray[np.uint32], one: int, other: int) -> int:  # pragma: no cover
    equal = 0
    for p in range(signed.shape[1]):
        equal += signed[one, p] == signed[other, p]
    return equal


@numba.njit(cache=True, inline="always")
def _num_bits(value: np.uint64) -> int:  # pragma: no cover
    number = 0
    while value:
        value &= value - np.uint64(1)
        number += 1
    return number


@numba.njit(cache=True)
def _doubtful_fixed(
    signed: npt.NDArray[np.uint32],
    fixed: npt.NDArray[np.bool_],
    compared: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    least: int,
    sure: int,
    max_bucket: int,
    found: npt.NDArray[np.bool_],
) -> None:  # pragma: no cover
    num_documents = len(fixed)
    for document in range(num_documents):
        if fixed[document] or not compared[document]:
            continue
        for band in range(order.shape[0]):
            # Fixed documents precede all others, in their bucket too.
            start = starts[band, document]
            for i in range(start, min(start + max_bucket, num_documents)):
                earlier = order[band, i]
                if not fixed[earlier] or starts[band, earlier] != start:
                    break
                if not found[earlier]:
                    found[earlier] = least <= _agreeing(signed, document, earlier) < sure


@numba.njit(cache=True)
def _apply(
    signed: npt.NDArray[np.uint32],
    fixed: npt.NDArray[np.bool_],
    has_words: npt.NDArray[np.bool_],
    text: npt.NDArray[np.int64],
    url: npt.NDArray[np.int64],
    shingles: npt.NDArray[np.uint32],
    shingle_offsets: Offsets,
    simhash: npt.NDArray[np.uint64],
    simhash_bits: int,
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    num_minhash: int,
    least: int,
    sure: int,
    threshold: float,
    max_bucket: int,
    rule: npt.NDArray[np.int8],
    duplicate_of: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
    by_sets: npt.NDArray[np.bool_],
) -> tuple[int, int]:  # pragma: no cover
    num_bands, num_documents = order.shape
    # A bucket's kept documents are gathered at its front in `order`: all that stood there has been dealt with.
    num_kept = np.zeros((num_bands, num_documents), dtype=np.int64)
    estimated_with = np.full(num_documents, -1, dtype=np.int64)
    # For each text, by its first document: the one that was kept, and which of them was found near to what.
    kept_text = np.full(num_documents, -1, dtype=np.int64)
    near_text = np.full(num_documents, -1, dtype=np.int64)
    near = np.full(num_documents, -1, dtype=np.int64)
    near_value = np.zeros(num_documents, dtype=np.float32)
    near_by_sets = np.zeros(num_documents, dtype=np.bool_)
    near_rule = np.zeros(num_documents, dtype=np.int8)
    kept_url = np.full(num_documents, -1, dtype=np.int64)
    num_estimated = 0
    num_compared = 0
    for document in range(num_documents):
        if not fixed[document]:
            # A kept document of the same text is the first that this one is near to: to an earlier one that text itself
            # would have been near, and dropped. What a dropped document of the same text is near to, this one is too.
            same = kept_text[text[document]]
            known = near_text[text[document]]
            if known >= 0:
                near[document] = near[known]
                near_value[document] = near_value[known]
                near_by_sets[document] = near_by_sets[known]
                near_rule[document] = near_rule[known]
            elif same < 0 and has_words[document]:
                for band in range(num_bands):
                    start = starts[band, document]
                    for i in range(start, start + num_kept[band, start]):
                        earlier = order[band, i]
                        if 0 <= near[document] < earlier:
                            continue
                        if band >= num_minhash:
                            num_bits = _num_bits(simhash[document] ^ simhash[earlier])
                            # A pair that both rules name is MinHash's, which says more of it.
                            if num_bits <= simhash_bits and near[document] != earlier:
                                near[document] = earlier
                                near_value[document] = 1 - num_bits / 64
                                near_by_sets[document] = False
                                near_rule[document] = SIMHASH
                            continue
                        if estimated_with[earlier] == document:
                            continue
                        estimated_with[earlier] = document
                        num_estimated += 1
                        equal = _agreeing(signed, document, earlier)
                        if equal < least:
                            continue
                        value = equal / signed.shape[1]
                        if equal < sure:
                            num_compared += 1
                            value = _jaccard(
                                shingles,
                                shingle_offsets[document],
                                shingle_offsets[document + 1],
                                shingle_offsets[earlier],
                                shingle_offsets[earlier + 1],
                            )
                        if equal >= sure or value >= threshold:
                            near[document] = earlier
                            near_value[document] = value
                            near_by_sets[document] = equal < sure
                            near_rule[document] = MINHASH
                if near[document] >= 0:
                    near_text[text[document]] = document
            found = near[document]
            name = near_rule[document]
            address = kept_url[url[document]] if url[document] >= 0 else -1
            if address >= 0 and (found < 0 or address < found):
                found, name = address, URL
            if same >= 0 and (found < 0 or same <= found):
                found, name = same, EXACT
            if found >= 0:
                duplicate_of[document] = found
                rule[document] = name
                if name in (MINHASH, SIMHASH):
                    similarity[document] = near_value[document]
                    by_sets[document] = near_by_sets[document]
                elif name == EXACT:
                    similarity[document] = 1
                continue
        kept_text[text[document]] = document
        if url[document] >= 0:
            kept_url[url[document]] = document
        if not has_words[document]:
            continue
        for band in range(num_bands):
            start = starts[band, document]
            if num_kept[band, start] < max_bucket:
                order[band, start + num_kept[band, start]] = document
                num_kept[band, start] += 1
    return num_estimated, num_compared
