"""64-bit hashes of words and n-grams, the same for the bytes of a text and of a model's file."""

import numba
import numpy as np

# FNV-1a's basis and prime (Fowler, Noll, Vo), the constants of MurmurHash3's fmix64 (Appleby), an odd one of xxHash64.
_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)


@numba.njit(cache=True, inline="always")
def hash_of() -> np.uint64:  # pragma: no cover
    """Of no bytes yet."""
    return _BASIS


@numba.njit(cache=True, inline="always")
def step(value: np.uint64, byte: np.uint8) -> np.uint64:  # pragma: no cover
    """With one byte more."""
    return (value ^ np.uint64(byte)) * _PRIME


@numba.njit(cache=True, inline="always")
def stirred(value: np.uint64) -> np.uint64:  # pragma: no cover
    """The hash of a word, all of whose bytes have been taken. Never 0."""
    value = (value ^ (value >> np.uint64(33))) * _MIX_1
    value = (value ^ (value >> np.uint64(33))) * _MIX_2
    return (value ^ (value >> np.uint64(33))) | np.uint64(1)


@numba.njit(cache=True, inline="always")
def extended(ngram: np.uint64, word: np.uint64) -> np.uint64:  # pragma: no cover
    """The hash of an n-gram with one word more before it. Never 0."""
    return (((ngram * _STEP) ^ (ngram >> np.uint64(29))) + word) * _MIX_1 | np.uint64(1)
