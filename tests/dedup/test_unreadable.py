"""Input files that cannot be signed: what they cost, and what later crawls make of the rest."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from configs.dedup import DedupSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.checkpoint.verify import verify
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.dedup import corpus
from tests.dedup.corpus import computed, published, rows
from tests.dedup.test_refresh import audit, crawls

NUM_FILES, NUM_PAGES = 6, 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def two_crawls(unreadable: Sequence[int], left_out: bool) -> list[list[pa.Table]]:
    """These files of each lack the column of URLs, or are left out."""
    made = crawls(11, NUM_PAGES, NUM_FILES)[:2]
    return [
        [
            table.drop_columns(["url"]) if number in unreadable else table
            for number, table in enumerate(files)
            if not (left_out and number in unreadable)
        ]
        for files in made
    ]


def refreshed(store: Store, made: Sequence[Sequence[pa.Table]], share: float = 0.4) -> list[Checkpoint]:
    done: list[Checkpoint] = []
    for number, files in enumerate(made):
        inputs = {"documents": published(store, files, f"crawl {number}"), **({"earlier": done[-1]} if done else {})}
        done.append(computed(DedupSpec(max_quarantined_share=share), inputs, store))
    return done


@pytest.mark.parametrize("files_a_group", [6, 4, 1])
@pytest.mark.parametrize("unreadable", [[1], [0, 5]])
def test_an_unreadable_file_costs_itself_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, files_a_group: int, unreadable: list[int]
) -> None:
    monkeypatch.setattr(corpus, "LEAST_IN_GROUP", files_a_group * NUM_PAGES)
    done = refreshed(store, two_crawls(unreadable, left_out=False))
    anew = refreshed(open_store(Path(store.url.removeprefix("file://")).parent / "anew"), two_crawls(unreadable, True))
    assert audit(done) == audit(anew)
    for one, other in zip(done, anew, strict=True):
        assert rows(one, "documents.parquet") == rows(other, "documents.parquet")
        assert one.manifest.counters["documents_in"] == (NUM_FILES - len(unreadable)) * NUM_PAGES
        lost = [(gone.stage, gone.reason.partition(" in ")[0]) for gone in one.manifest.quarantined]
        assert lost == [("signatures-apart", "ArrowInvalid: No match for FieldRef.Name(url)")] * len(unreadable)
        assert list(verify(store, [one.manifest.path], deep=True)) == []


def test_more_unreadable_files_than_the_spec_allows_fail_the_node(store: Store) -> None:
    with pytest.raises(NodeFailed, match=r"(?s)2 of 6 shards of stage signatures-apart .*raise max_quarantined_share"):
        refreshed(store, two_crawls([2, 4], left_out=False), share=0.2)
    with pytest.raises(NodeFailed, match=r"1 of 1 shards of stage signatures failed"):
        refreshed(store, two_crawls([2], left_out=False), share=0.0)


def test_a_corpus_of_unreadable_files_only_is_refused(store: Store) -> None:
    with pytest.raises(NodeFailed, match="no file with documents of filter could be read"):
        refreshed(store, two_crawls(range(NUM_FILES), left_out=False), share=1.0)
