"""A seeded permutation of 0 … n-1 that needs no table: any element in O(1), for a billion as for ten.

A generalised Feistel network over b = ⌈log2 n⌉ bits is a bijection of 0 … 2^b - 1 whatever its round
function, since each round XORs one half with a function of the other, untouched one. Elements that land at n
or above are sent through the network again until they land below n ("cycle walking"); 2^b < 2n, so that takes
fewer than two passes on average. Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA
2002), sections 3 and 5. Shuffling needs no cryptography: the round function is the finaliser of MurmurHash3
(fmix64), and eight rounds leave no visible structure.
"""

import hashlib

import numpy as np

NUM_ROUNDS = 8
# fmix64's multipliers (Appleby, MurmurHash3).
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


class Permutation:
    """The permutation of 0 … size-1 that belongs to (seed, stream).

    The network's keys are SHA-256 of those numbers, so that neighbouring seeds, and the epochs of one seed,
    have nothing in common.
    """

    def __init__(self, size: int, seed: int, stream: int = 0):
        if size < 1:
            raise ValueError(f"a permutation needs at least one element, not {size}")
        self.size = size
        num_bits = max(2, (size - 1).bit_length())
        self._low_bits = np.uint64(num_bits // 2)
        self._low_mask = np.uint64((1 << (num_bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (num_bits - num_bits // 2)) - 1)
        digests = [hashlib.sha256(f"{size}/{seed}/{stream}/{r}".encode()).digest() for r in range(NUM_ROUNDS)]
        self._keys = np.frombuffer(b"".join(d[:8] for d in digests), dtype="<u8").astype(np.uint64)

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Where `indices` (integers in 0 … size-1) go: int64, same shape."""
        values = np.asarray(indices).astype(np.uint64)
        assert values.size == 0 or int(values.max()) < self.size
        values = self._network(values)
        outside = values >= self.size
        while outside.any():
            values[outside] = self._network(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        low, high = values & self._low_mask, values >> self._low_bits
        for round_number, key in enumerate(self._keys):
            if round_number % 2 == 0:
                low = low ^ (_mix(high ^ key) & self._low_mask)
            else:
                high = high ^ (_mix(low ^ key) & self._high_mask)
        return (high << self._low_bits) | low


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> _SHIFT)) * _MIX_1
    values = (values ^ (values >> _SHIFT)) * _MIX_2
    return values ^ (values >> _SHIFT)
