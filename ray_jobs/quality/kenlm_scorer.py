"""Documents scored by KenLM (Heafield 2011), where it is installed: the same figures as `reader` gives."""

import gzip
import itertools
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs.quality.reader import Scores
from ray_jobs.quality.sentences import Bytes, Offsets


@dataclass(frozen=True)
class KenLM:
    model: Any
    """kenlm.Model"""


def read_arpa(compressed: bytes) -> KenLM:
    """Raises ValueError where KenLM is not installed."""
    try:
        import kenlm
    except ImportError as error:
        raise ValueError(
            "quality.scorer is kenlm, which is not installed: pip install 'headrace[kenlm]' (it is compiled, and needs "
            "cmake and a C++ compiler), or leave quality.scorer at headrace, which gives the same figures"
        ) from error
    # Not every build of KenLM reads gzip. It maps nothing of a text file, so that this one can go.
    with tempfile.NamedTemporaryFile(suffix=".arpa") as file:
        file.write(gzip.decompress(compressed))
        file.flush()
        return KenLM(kenlm.Model(file.name))


def score(model: KenLM, normalised: Bytes, offsets: Offsets) -> Scores:
    """Scores of documents as `sentences.normalise` gives them."""
    num_documents = len(offsets) - 1
    logprob = np.zeros(num_documents, dtype=np.float64)
    num_words, num_unknown = np.zeros((2, num_documents), dtype=np.int64)
    for document, (start, end) in enumerate(itertools.pairwise(offsets.tolist())):
        for line in normalised[start:end].tobytes().decode().splitlines():
            for p, _, is_unknown in model.model.full_scores(line):
                logprob[document] += p
                num_words[document] += 1
                num_unknown[document] += is_unknown
    return Scores(logprob, num_words, num_unknown)
