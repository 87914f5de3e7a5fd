"""The report's section on documents that held text of the evaluation sets."""

import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from tests.report.synthetic import HOSTILE, SCRIPT, audit, documents, finish, identities
from tests.report.test_page import html_of, parsed, section, sections


@pytest.fixture
def graph(file_store: Store) -> dict[str, Checkpoint]:
    """Three documents, of which two hold text of two sets; a third set is clean."""
    ids = identities(3)
    examples = {"examples": 30, "examples.clean": 5, f"examples.{SCRIPT}": 10, "examples.math": 15}
    eval_sets = finish(
        file_store, "eval-sets", {"sets": [ShardOutput({}, examples)]}, metrics={"sets": 3, "examples": 30}
    )
    source = finish(file_store, "dedup", {"documents": [ShardOutput({}, {"documents_in": 3, "documents_kept": 3})]})
    hits = pa.table(
        {
            "id": [ids[0], ids[2], ids[2]],
            "set": ["math", "math", SCRIPT],
            "example": pa.array([7, 8, 0], pa.int64()),
            "count": pa.array([9, 2, 1], pa.int32()),
            "words": ["natalia sold clips", HOSTILE, "third words"],
        }
    )
    shard = ShardOutput(
        {
            "documents.parquet": documents(ids[1:2], ["https://a.example"], ["text"]),
            "audit.parquet": audit(ids, ["dropped", "kept", "dropped"], ["contaminated", None, "contaminated"]),
            "contamination.parquet": parquet_file(hits),
        },
        {
            "documents_in": 3,
            "documents_kept": 1,
            "dropped.contaminated": 2,
            "contaminated.math": 2,
            f"contaminated.{SCRIPT}": 1,
        },
    )
    inputs = {"documents": source, "eval_sets": eval_sets}
    metrics = {"common_ngrams": 4, "examples_too_short": 1}
    scrub = finish(file_store, "scrub", {"documents": [shard]}, inputs, metrics)
    return {"scrub": scrub, "dedup": source, "sets": eval_sets}


def test_sets_stand_with_their_documents_and_hits_with_their_words(graph: dict[str, Checkpoint]) -> None:
    page = parsed(html_of(graph))
    shown = section(page, "contamination")
    rows = [[cell.text() for cell in row.all("th") + row.all("td")] for row in shown.all("tr")][1:]
    assert rows == [["math", "15", "2"], [SCRIPT, "10", "1"], ["clean", "5", "0"]]
    assert "natalia sold clips" in shown.text() and "9 n-grams" in shown.text()
    assert SCRIPT in shown.text() and not page.all("script")
    assert "node-sets" not in sections(page)  # the section shows that node's figures


def test_a_run_without_evaluation_sets_has_no_such_section(graph: dict[str, Checkpoint]) -> None:
    assert "contamination" not in sections(parsed(html_of({"dedup": graph["dedup"]})))
    assert "node-sets" in sections(parsed(html_of({"sets": graph["sets"]})))
