"""What filter writes of one archive: the documents kept, and the audit of all that entered."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from ray_jobs.checkpoint.shards import File, parquet_file
from ray_jobs.crawl.documents import Document
from ray_jobs.crawl.rules import VERSIONS
from ray_jobs.crawl.statistics import NAMES

DOCUMENTS = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "language": pa.string(),
        "language_score": pa.float32(),
        "text": pa.large_string(),
    }
)
AUDIT = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        # As YYYY-MM-DDThh:mm:ssZ; null where the archive does not say when it was fetched.
        "date": pa.string(),
        "record_type": pa.string(),
        "num_bytes": pa.int64(),
        "language": pa.string(),
        "language_score": pa.float32(),
        # What the model calls it, where that is no code of lid.176; and the second opinion, where one is asked for.
        "language_label": pa.string(),
        "second_language": pa.string(),
        # Of line corrections, null where none are asked for.
        "num_removed_lines": pa.int32(),
        "num_edited_lines": pa.int32(),
        "removed_words": pa.float64(),
        # Not rounded, so that a decision can be made again out of them.
        **{name: pa.int32() if name.startswith("num_") else pa.float64() for name in NAMES},
        "decision": pa.string(),
        "rule": pa.string(),
        "rule_version": pa.int32(),
        "value": pa.float64(),
        "threshold": pa.float64(),
        "source": pa.string(),
    }
)
NUM_SAMPLES = 2
SAMPLE_CHARACTERS = 300


class Tables:
    """Collects the rows of one archive.

    Args:
        prefix: crawl and file, the first parts of the documents' ids.
    """

    def __init__(self, prefix: str):
        self._prefix = prefix
        self._documents: dict[str, list[Any]] = {name: [] for name in DOCUMENTS.names}
        self._audit: dict[str, list[Any]] = {name: [] for name in AUDIT.names}
        self._dropped: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        self._samples: dict[str, list[dict[str, str]]] = {}

    def add(self, documents: Iterable[Document]) -> None:
        for document in documents:
            self._add(document)

    def _add(self, document: Document) -> None:
        record, scores, verdict = document.record, document.scores, document.verdict
        row = {
            "id": f"{self._prefix}/{record.offset:012d}",
            "url": record.url,
            "date": record.date or None,
            "record_type": record.type,
            "num_bytes": document.num_bytes,
            "language": scores and scores.language,
            "language_score": scores and scores.language_score,
            "language_label": (scores and scores.language_label) or None,
            "second_language": scores and scores.second_language,
            "num_removed_lines": document.corrected and document.corrected.num_removed,
            "num_edited_lines": document.corrected and document.corrected.num_edited,
            "removed_words": document.corrected and document.corrected.removed_words,
            **{name: scores and getattr(scores.statistics, name) for name in NAMES},
            "decision": "kept" if verdict is None else "dropped",
            "rule": verdict and verdict.rule,
            "rule_version": verdict and VERSIONS.get(verdict.rule),
            "value": verdict and verdict.value,
            "threshold": verdict and verdict.threshold,
            "source": document.source,
        }
        for name, column in self._audit.items():
            column.append(row[name])
        if scores is not None:
            self._languages[scores.language] += 1
            if scores.second_language is not None:
                self._others["languages_compared"] += 1
                self._others["languages_agreed"] += scores.second_language == scores.language
        if document.corrected is not None:
            self._others["lines_removed"] += document.corrected.num_removed
            self._others["lines_edited"] += document.corrected.num_edited
        if verdict is None:
            row["text"] = document.text
            for name, column in self._documents.items():
                column.append(row[name])
        else:
            self._dropped[f"dropped.{verdict.rule}"] += 1
        samples = self._samples.setdefault("kept" if verdict is None else verdict.rule, [])
        if len(samples) < NUM_SAMPLES:
            samples.append({"url": record.url, "text": document.text[:SAMPLE_CHARACTERS]})

    def counters(self) -> dict[str, int]:
        kept = len(self._documents["id"])
        return {
            "documents_in": len(self._audit["id"]),
            "documents_kept": kept,
            "characters_kept": sum(map(len, self._documents["text"])),
            **self._dropped,
            **self._others,
        }

    def files(self) -> dict[str, File]:
        return {
            "documents.parquet": parquet_file(pa.table(self._documents, schema=DOCUMENTS)),
            "audit.parquet": parquet_file(pa.table(self._audit, schema=AUDIT)),
        }

    def info(self) -> dict[str, Any]:
        """For the report: languages found, and the first of what was kept and of what each rule dropped."""
        return {
            "languages": dict(sorted(self._languages.items())),
            "samples": dict(sorted(self._samples.items())),
        }
