"""python -m tests.benchmarks.quality: scores of documents and the models that give them, on one core.

"per_s_core" is of a second of processor time, of all threads and child processes together, as in corpus.py.
"""

import functools
import gzip
import itertools
import json
import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.corpus import equal_documents, peer, processor_time
from tests.benchmarks.harness import Bench, NotMeasured, figure, main

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KENLM = "kenlm==0.3.0"
ORDER, LEAST_COUNTS = 3, (1, 1, 1)


@functools.cache
def halves(given: Path | None) -> "tuple[pa.Array, pa.Array]":
    """Documents to train on and documents to score: every other one."""
    import numpy as np
    import pyarrow as pa

    documents = equal_documents(given)
    odd = np.arange(len(documents)) % 2 == 1
    return documents.filter(pa.array(~odd)), documents.filter(pa.array(odd))


@functools.cache
def sentences(given: Path | None) -> "tuple[np.ndarray, np.ndarray]":
    """Those of the documents to train on, and the documents' offsets."""
    from ray_jobs.files.columns import text_buffers
    from ray_jobs.quality.sentences import normalise

    return normalise(*text_buffers(halves(given)[0]), "ccnet")


def trained(given: Path | None) -> tuple[bytes, int]:
    """From text to ARPA, as the node does it; and how many words and sentences' ends that took."""
    from ray_jobs.files.columns import text_buffers
    from ray_jobs.quality.arpa import arpa
    from ray_jobs.quality.counts import SPECIAL, add, count_run
    from ray_jobs.quality.kneser_ney import estimate
    from ray_jobs.quality.sentences import normalise

    normalised, _ = normalise(*text_buffers(halves(given)[0]), "ccnet")
    run = add([count_run(normalised, ORDER)], ORDER)
    model = estimate(run, len(SPECIAL) + len(run.words), LEAST_COUNTS)
    return arpa(model, run.words), int(run.counts.sum())


@functools.cache
def model_of(given: Path | None) -> bytes:
    return trained(given)[0]


@figure("docs/s", target="≥ perplexity_docs_per_s_core_kenlm")
def perplexity_docs_per_s_core(bench: Bench) -> float:
    """From text to perplexities: cut into words, hashed, looked up. The model is of order 3."""
    from ray_jobs.files.columns import text_buffers
    from ray_jobs.quality.reader import read_arpa, score
    from ray_jobs.quality.sentences import normalise

    model, documents = read_arpa(model_of(bench.input)), halves(bench.input)[1]
    with processor_time() as seconds:
        normalised, offsets = normalise(*text_buffers(documents), "ccnet")
        scores = score(model, normalised, offsets)
    bench.notes |= {
        "documents": len(documents),
        "words": int(scores.num_words.sum()),
        "words_per_s": round(scores.num_words.sum() / seconds()),
        "model_mb": round(model.entries.nbytes / 1e6, 1),
    }
    return len(documents) / seconds()


@figure("docs/s", warm_up=False)  # the script warms up by itself
def perplexity_docs_per_s_core_kenlm(bench: Bench) -> float:
    """KenLM's Python module on the same documents and model, with cutting into words by `re`.

    The note is of scoring alone, of lines that were cut beforehand as ours are.
    """
    from ray_jobs.files.columns import text_buffers
    from ray_jobs.quality.sentences import normalise

    documents = halves(bench.input)[1]
    folder = bench.new_folder()
    (folder / "model.arpa").write_bytes(gzip.decompress(model_of(bench.input)))
    normalised, offsets = normalise(*text_buffers(documents), "ccnet")
    cut = [normalised[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets.tolist())]
    (folder / "documents.jsonl").write_text(
        "".join(json.dumps(pair) + "\n" for pair in zip(documents.to_pylist(), cut, strict=True))
    )
    whole, scoring = peer(bench, (KENLM,), "peer_kenlm.py", folder / "model.arpa", folder / "documents.jsonl")
    bench.notes |= {"documents": len(documents), "scoring_alone": round(scoring), "version": KENLM}
    return whole


@figure("words/s")
def ngram_lm_words_per_s_core(bench: Bench) -> float:
    """Training: from text to a compressed ARPA file of order 3, nothing pruned."""
    with processor_time() as seconds:
        model, num_words = trained(bench.input)
    bench.notes |= {"words": num_words, "arpa_gz_mb": round(len(model) / 1e6, 1)}
    return num_words / seconds()


@figure("words/s")
def ngram_lm_words_per_s_core_lmplz(bench: Bench) -> float:
    """KenLM's lmplz on the same text, cut into words beforehand; its ARPA is not compressed."""
    lmplz = os.environ.get("HEADRACE_LMPLZ")
    if not lmplz:
        raise NotMeasured("needs KenLM's lmplz, which pip does not install: set HEADRACE_LMPLZ to the program")
    normalised, _ = sentences(bench.input)
    folder = bench.new_folder()
    command = [lmplz, "-o", str(ORDER), "-S", "1G", "-T", str(folder), "--discount_fallback"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, input=normalised.tobytes(), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    num_words = int(((normalised == 32) | (normalised == 10)).sum() + (normalised == 10).sum())
    bench.notes |= {"words": num_words}
    return num_words / (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


if __name__ == "__main__":
    main("quality", __name__)
