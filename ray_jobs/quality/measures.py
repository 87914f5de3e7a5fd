"""What classifiers and word lists say of documents, as columns."""

import pyarrow as pa

from configs.toxicity import ToxicWords
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.quality.classifier_job import classifier_of, positive_of
from ray_jobs.quality.lists import Lists, measure

MEASURED = (
    ("quality", pa.float32()),
    ("toxicity", pa.float32()),
    ("toxic_share", pa.float32()),
    ("toxic_terms", pa.int32()),
)
"""Null where there is no classifier, or no words are looked for."""


def classified(table: pa.Table, classifier: Checkpoint | None) -> pa.Array:
    """The classifier's probability of its positive label: float32, one a row."""
    if classifier is None:
        return pa.nulls(table.num_rows, pa.float32())
    return pa.array(classifier_of(classifier).probabilities(table["text"], positive_of(classifier)), pa.float32())


def listed(table: pa.Table, lists: Lists | None, spec: ToxicWords | None) -> dict[str, pa.Array]:
    """What each document holds of the lists for its language."""
    if lists is None or spec is None:
        return {
            "toxic_share": pa.nulls(table.num_rows, pa.float32()),
            "toxic_terms": pa.nulls(table.num_rows, pa.int32()),
        }
    found = measure(table["text"], table["language"], lists, spec.everywhere)
    return {
        "toxic_share": pa.array([one.share for one in found], pa.float32()),
        "toxic_terms": pa.array([one.num_terms for one in found], pa.int32()),
    }
