"""datasketch's MinHash of documents, one a line of JSON; prints documents a second of processor time.

Run by corpus.py, in an environment of its own. Settings are the fastest: 32-bit values, xxHash, one call a document;
the second figure is of the library alone, its n-grams made beforehand.
"""

import json
import sys
import time
from pathlib import Path

import xxhash
from datasketch import MinHash


def shingles(text: str, width: int) -> list[bytes]:
    words = text.lower().encode().split()
    return [b" ".join(words[i : i + width]) for i in range(max(1, len(words) - width + 1))]


if __name__ == "__main__":
    texts = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    num_permutations, width = int(sys.argv[2]), int(sys.argv[3])
    settings = {"num_perm": num_permutations, "hashfunc": xxhash.xxh32_intdigest, "scheme": "affine32"}
    MinHash.bulk([shingles(text, width) for text in texts[:20]], **settings)
    began = time.process_time()
    token_sets = [shingles(text, width) for text in texts]
    made = time.process_time()
    MinHash.bulk(token_sets, **settings)
    ended = time.process_time()
    print(len(texts) / (ended - began), len(texts) / (ended - made))
