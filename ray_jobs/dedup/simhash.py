"""SimHash: one number of 64 bits a document, close in bits where documents share most shingles.

**The number.** Each shingle of a document is hashed to 64 bits, as often as it occurs. Bit b of the document's SimHash
is 1 if more of its shingles have that bit set than not; so two documents at an angle θ between their vectors of shingle
counts differ in each bit with a chance of about θ/π. Sources: Charikar, "Similarity estimation techniques from
rounding algorithms" (2002), section 3; Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling" (2007),
section 2. A tie gives 0, and a document without a word is 0.

**Finding pairs within k bits** (Manku et al., section 3). The 64 bits are cut into m blocks, m > k. Where two numbers
differ in at most k bits, at least m - k blocks agree: among the keys made of every choice of m - k blocks at least one
is equal. More blocks make longer keys, which few agree in by chance, and more of them: for k = 3, 4 blocks give 4 keys
of 16 bits, 6 blocks 20 keys of 31 to 33 bits.
"""

import itertools

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.dedup.minhash import Bytes, Offsets, hash_shingles, hash_words, longest_document
from ray_jobs.files.scripts import unspaced_bits

NUM_BITS = 64
EXTRA_BLOCKS = 3
"""Blocks beyond the k that may differ, so that a key has three of them: Manku et al.'s plan for k = 3."""

# Of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def simhashes(normalised: Bytes, offsets: Offsets, shingle_words: int) -> npt.NDArray[np.uint64]:
    """SimHashes of normalised documents (`minhash.normalise`): uint64 [n]."""
    out = np.empty(len(offsets) - 1, dtype=np.uint64)
    _simhashes(normalised, offsets, shingle_words, unspaced_bits(), out)
    return out


def distance(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """In how many bits two numbers differ, element by element."""
    return np.bitwise_count(one ^ other)


def blocks(num_blocks: int) -> npt.NDArray[np.uint64]:
    """Masks of the blocks that the 64 bits are cut into, of equal size give or take a bit: uint64 [num_blocks]."""
    edges = [NUM_BITS * block // num_blocks for block in range(num_blocks + 1)]
    return np.array([(1 << end) - (1 << start) for start, end in itertools.pairwise(edges)], dtype=np.uint64)


def band_masks(max_bits: int, num_blocks: int | None = None) -> npt.NDArray[np.uint64]:
    """The bits that make each key: uint64 [bands]. By default of `max_bits` + 3 blocks.

    Raises:
        ValueError: so few blocks that all may differ, or more than there are bits.
    """
    num_blocks = max_bits + EXTRA_BLOCKS if num_blocks is None else num_blocks
    if not max_bits < num_blocks <= NUM_BITS:
        raise ValueError(f"pairs within {max_bits} bits need {max_bits + 1} to {NUM_BITS} blocks, not {num_blocks}")
    chosen = itertools.combinations(blocks(num_blocks).tolist(), num_blocks - max_bits)
    return np.array([sum(masks) for masks in chosen], dtype=np.uint64)


def band_keys_of(
    simhash: npt.NDArray[np.uint64], max_bits: int, num_blocks: int | None = None
) -> npt.NDArray[np.uint64]:
    """A key for every choice of blocks: uint64 [bands, n]. Of two documents within `max_bits` bits at least one key is
    equal; keys of different bands are different."""
    masks = band_masks(max_bits, num_blocks)
    keys = np.empty((len(masks), len(simhash)), dtype=np.uint64)
    for band, mask in enumerate(masks):
        # Hashed, so that the upper bits, by which keys are sorted and spread, are never those that the mask left out.
        keys[band] = _mixed((simhash & mask) + np.uint64(band * int(_GOLDEN) % 2**NUM_BITS))
    return keys


def pairs_within(simhash: npt.NDArray[np.uint64], max_bits: int) -> npt.NDArray[np.int64]:
    """Pairs (earlier, later) of documents within `max_bits` bits: int64 [p, 2], in the order of the later, then the
    earlier one.

    Of documents with one and the same SimHash only the first is paired with others, and each of the others with it:
    10,000 copies are 9,999 pairs.
    """
    distinct, first, inverse = np.unique(simhash, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[inverse] != np.arange(len(simhash)))
    found = [np.stack([first[inverse[copies]], copies], axis=1)]
    masks = band_masks(max_bits)
    for band in range(len(masks)):
        order = np.argsort(distinct & masks[band], kind="stable")
        close = np.empty(
            (_close_pairs(distinct, order, masks, band, max_bits, np.empty((0, 2), np.int64)), 2), np.int64
        )
        _close_pairs(distinct, order, masks, band, max_bits, close)
        found.append(np.sort(first[close], axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]


@numba.vectorize(cache=True)
def _mixed(value: np.uint64) -> np.uint64:  # pragma: no cover
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, inline="always")
def _add(one: np.uint64, two: np.uint64, three: np.uint64) -> tuple[np.uint64, np.uint64]:  # pragma: no cover
    """Of 64 sums of three bits the lower bits and the carries."""
    either = one ^ two
    return either ^ three, (one & two) | (either & three)


@numba.njit(cache=True)
def _simhashes(
    data: Bytes, offsets: Offsets, width: int, unspaced: Bytes, out: npt.NDArray[np.uint64]
) -> None:  # pragma: no cover
    room = longest_document(offsets) // 2 + 2
    words = np.empty(room, dtype=np.uint64)
    shingles = np.empty(room, dtype=np.uint32)
    hashes = np.empty(room + 8, dtype=np.uint64)
    planes = np.empty(NUM_BITS, dtype=np.uint64)
    for document in range(len(offsets) - 1):
        num_words = hash_words(data, offsets[document], offsets[document + 1], unspaced, words)
        num_shingles = hash_shingles(words, num_words, width, shingles)
        for i in range(num_shingles):
            hashes[i] = _mixed(np.uint64(shingles[i]) + _GOLDEN)
        hashes[num_shingles : num_shingles + 8] = 0
        # 64 counters stand upright: bit b of plane p is bit p of how many hashes have bit b. Eight are added at a time
        # by carry-save adders, a tenth of the steps of counting bit by bit (Harley and Seal; Warren, "Hacker's
        # Delight", section 5-1).
        planes[:] = 0
        ones, twos, fours = np.uint64(0), np.uint64(0), np.uint64(0)
        for i in range(0, num_shingles, 8):
            ones, two_a = _add(ones, hashes[i], hashes[i + 1])
            ones, two_b = _add(ones, hashes[i + 2], hashes[i + 3])
            twos, four_a = _add(twos, two_a, two_b)
            ones, two_a = _add(ones, hashes[i + 4], hashes[i + 5])
            ones, two_b = _add(ones, hashes[i + 6], hashes[i + 7])
            twos, four_b = _add(twos, two_a, two_b)
            fours, carry = _add(fours, four_a, four_b)
            plane = 3
            while carry:
                planes[plane], carry = planes[plane] ^ carry, planes[plane] & carry
                plane += 1
        planes[0], planes[1], planes[2] = ones, twos, fours
        # Which counters are above half, from the highest bit at which each differs from it.
        half = np.uint64(num_shingles // 2)
        above, equal = np.uint64(0), ~np.uint64(0)
        for plane in range(31, -1, -1):
            if (half >> np.uint64(plane)) & np.uint64(1):
                equal &= planes[plane]
            else:
                above |= equal & planes[plane]
                equal &= ~planes[plane]
        out[document] = above


@numba.njit(cache=True)
def _close_pairs(
    values: npt.NDArray[np.uint64],
    order: npt.NDArray[np.int64],
    masks: npt.NDArray[np.uint64],
    band: int,
    max_bits: int,
    out: npt.NDArray[np.int64],
) -> int:  # pragma: no cover
    """Pairs of values whose bits under the band's mask agree, under no earlier band's, and within `max_bits` bits.

    Returns their number, and writes as many as `out` has room for.
    """
    number = 0
    for i in range(len(order)):
        one = values[order[i]]
        for j in range(i + 1, len(order)):
            differing = one ^ values[order[j]]
            if differing & masks[band]:
                break
            num_bits = 0
            rest = differing
            while rest and num_bits <= max_bits:
                rest &= rest - np.uint64(1)
                num_bits += 1
            if num_bits > max_bits:
                continue
            is_new = True
            for earlier in range(band):
                is_new = is_new and differing & masks[earlier] != 0
            if is_new:
                if number < len(out):
                    out[number, 0], out[number, 1] = order[i], order[j]
                number += 1
    return number
