"""datatrove's n-gram decontamination of documents; prints megabytes a second of processor time, and documents dropped.

Run by corpus.py, in an environment of its own. The index holds the hashes that its indexer would write for the same
examples: the indexer itself wants lighteval, whose tasks are not asked for.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.logging import logger
from datatrove.utils.text import ngrams, simplify_text

WARM_UP = 20


def index_of(examples: list[str], folder: Path, config: NGramsDecontConfig) -> None:
    maker = NGramsDecontFilter(str(folder), config)
    hashes: set[int] = set()
    for example in examples:
        tokens = maker.tokenizer.word_tokenize(simplify_text(example, config.norm_config))
        hashes.update(map(maker.hash_func, map(" ".join, ngrams(tokens, config.n_grams))))
    np.array(list(hashes), dtype=config.hash_config.np_descr).tofile(folder / "set.index.hashes")


if __name__ == "__main__":
    logger.remove()
    documents, examples = ([json.loads(line) for line in Path(name).read_text().splitlines()] for name in sys.argv[1:3])
    config = NGramsDecontConfig(n_grams=int(sys.argv[3]))
    with tempfile.TemporaryDirectory() as folder:
        index_of(examples, Path(folder), config)
        decontaminate = NGramsDecontFilter(folder, config)
        for text in documents[:WARM_UP]:
            decontaminate.filter(Document(text, "0"))
        began = time.process_time()
        dropped = sum(decontaminate.filter(Document(text, "0")) is not True for text in documents)
        seconds = time.process_time() - began
    print(sum(len(text.encode()) for text in documents) / 1e6 / seconds, dropped)
