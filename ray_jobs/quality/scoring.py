"""Perplexities of documents under the models that a finished ngram-lm node left."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.quality import NgramLmSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import Store
from ray_jobs.files.columns import text_buffers
from ray_jobs.quality import kenlm_scorer, reader
from ray_jobs.quality.reader import Scores
from ray_jobs.quality.sentences import normalise

Scorer = Literal["headrace", "kenlm"]
MODEL_SUFFIX = ".arpa.gz"
# A worker goes through many shards with the same models, and holds them: by checksum and scorer.
_models: dict[tuple[str, Scorer], reader.LanguageModel | kenlm_scorer.KenLM] = {}


def model_files(language_model: Checkpoint) -> dict[str, OutputFile]:
    """Language -> its model."""
    files = [file for file in language_model.manifest.outputs if file.name.endswith(MODEL_SUFFIX)]
    return {file.name.removesuffix(MODEL_SUFFIX): file for file in files}


def spec_of(language_model: Checkpoint) -> NgramLmSpec:
    """What the models were trained with: texts are cut into words as theirs were."""
    return NgramLmSpec.model_validate(language_model.manifest.payload["spec"])


def score_texts(
    text: pa.ChunkedArray | pa.Array, store: Store, model: OutputFile, spec: NgramLmSpec, scorer: Scorer = "headrace"
) -> Scores:
    """Scores of each text under one model."""
    normalised, offsets = normalise(*text_buffers(text), spec.tokens)
    held = _held(store, model, scorer)
    if isinstance(held, reader.LanguageModel):
        return reader.score(held, normalised, offsets)
    return kenlm_scorer.score(held, normalised, offsets)


def perplexities(table: pa.Table, language_model: Checkpoint | None, scorer: Scorer) -> pa.Array:
    """float32, one a row of a table with `language` and `text`; null where there is no model of the language, or no
    word in the text."""
    found = np.full(table.num_rows, np.nan, dtype=np.float32)
    files = model_files(language_model) if language_model else {}
    for language, file in files.items():
        assert language_model is not None
        rows = rows_in(table, language)
        if len(rows):
            text = table["text"].take(pa.array(rows))
            found[rows] = score_texts(text, language_model.store, file, spec_of(language_model), scorer).perplexity
    return pa.array(found, pa.float32(), mask=np.isnan(found))


def rows_in(table: pa.Table, language: str) -> npt.NDArray[np.int64]:
    """Numbers of the rows in that language."""
    is_it = pc.equal(table["language"].cast(pa.string()), language).fill_null(False)
    return np.flatnonzero(is_it.to_numpy())


def _held(store: Store, model: OutputFile, scorer: Scorer) -> reader.LanguageModel | kenlm_scorer.KenLM:
    name = (model.sha256, scorer)
    if name not in _models:
        data = read_checked(store, model)
        _models[name] = kenlm_scorer.read_arpa(data) if scorer == "kenlm" else reader.read_arpa(data, model.name)
    return _models[name]
