"""rensa's R-MinHash of documents, one a line of JSON; prints documents a second of processor time, on one thread.

Run by corpus.py, in an environment of its own. Signatures are of whole sets of word n-grams (not of rho's samples), as
ours are; the second figure is of the library alone, its n-grams made beforehand.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"

from rensa import RMinHash


def shingles(text: str, width: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + width]) for i in range(max(1, len(words) - width + 1))]


if __name__ == "__main__":
    texts = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    num_permutations, width = int(sys.argv[2]), int(sys.argv[3])
    RMinHash.digest_matrix_from_token_sets([shingles(text, width) for text in texts[:100]], num_permutations, 1)
    began = time.process_time()
    token_sets = [shingles(text, width) for text in texts]
    made = time.process_time()
    RMinHash.digest_matrix_from_token_sets(token_sets, num_permutations, 1)
    ended = time.process_time()
    print(len(texts) / (ended - began), len(texts) / (ended - made))
