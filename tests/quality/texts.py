"""Models of small texts, made as the node makes them."""

import gzip
from collections.abc import Sequence

import pyarrow as pa

from configs.quality import Tokens
from ray_jobs.files.columns import text_buffers
from ray_jobs.quality import reader
from ray_jobs.quality.arpa import arpa
from ray_jobs.quality.counts import SPECIAL, Run, add, count_run
from ray_jobs.quality.kneser_ney import Model, estimate
from ray_jobs.quality.reader import LanguageModel, Scores
from ray_jobs.quality.sentences import Bytes, Offsets, normalise


def normalised(texts: Sequence[str | bytes], tokens: Tokens = "ccnet") -> tuple[Bytes, Offsets]:
    data = [text.encode() if isinstance(text, str) else text for text in texts]
    return normalise(*text_buffers(pa.array(data, pa.large_binary())), tokens)


def run_of(sentences: Sequence[str], order: int) -> Run:
    return count_run(normalised(["\n".join(sentences)])[0], order)


def model_of(run: Run, least_counts: tuple[int, ...]) -> Model:
    return estimate(run, len(SPECIAL) + len(run.words), least_counts)


def arpa_of(sentences: Sequence[str], least_counts: tuple[int, ...]) -> bytes:
    """Compressed."""
    run = add([run_of(sentences, len(least_counts))], len(least_counts))
    return arpa(model_of(run, least_counts), run.words)


def ngrams_of(data: bytes) -> dict[str, tuple[float, float]]:
    """n-gram -> (log10 p, log10 back-off weight) of ARPA, read line by line."""
    found = {}
    for line in data.decode().splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            assert fields[1] not in found
            found[fields[1]] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0
    return found


def logprob(ngrams: dict[str, tuple[float, float]], ngram: list[str], order: int) -> float:
    """Of the last word after the others, by the definition of the format."""
    ngram = ngram[-order:]
    if " ".join(ngram) in ngrams:
        return ngrams[" ".join(ngram)][0]
    return ngrams.get(" ".join(ngram[:-1]), (0.0, 0.0))[1] + logprob(ngrams, ngram[1:], order)


def plain_score(ngrams: dict[str, tuple[float, float]], sentence: str, order: int) -> float:
    """log10 p of a sentence and its end, word by word."""
    line = ["<s>", *(word if word in ngrams else "<unk>" for word in sentence.split()), "</s>"]
    return sum(logprob(ngrams, line[max(0, end - order) : end + 1], order) for end in range(1, len(line)))


def scores_of(model: LanguageModel, texts: Sequence[str]) -> Scores:
    return reader.score(model, *normalised(texts))


def read(data: bytes) -> LanguageModel:
    """Of ARPA that is not compressed."""
    return reader.read_arpa(gzip.compress(data))
