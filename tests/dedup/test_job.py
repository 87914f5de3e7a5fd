import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.dedup import DedupSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.dedup import clustering, corpus
from tests.dedup import reference
from tests.dedup.corpus import computed, debian_texts, document_table, published, rows

NEVER_UNIQUE = "this very page stands at several addresses of the same site and says the same everywhere"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def deduplicated(store: Store, tables: list[pa.Table], name: str = "corpus", **spec: object) -> Checkpoint:
    return computed(DedupSpec(**spec), {"documents": published(store, tables, name)}, store)


def audit(checkpoint: Checkpoint) -> dict[str, tuple[str, str | None, str | None]]:
    return {row["id"]: (row["decision"], row["rule"], row["duplicate_of"]) for row in rows(checkpoint, "audit.parquet")}


def page(seed: int, num_words: int = 200) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(5000)}" for _ in range(num_words)]


def edited(words: list[str], num_edits: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    places = generator.sample(range(len(words)), num_edits)
    return [f"edit{seed}" if i in places else word for i, word in enumerate(words)]


def test_planted_duplicates_are_dropped_and_named_and_all_else_is_kept(store: Store) -> None:
    original, other = page(1), page(2)
    tables = [
        document_table([" ".join(original), " ".join(page(3)), "short"], file=0),
        document_table([" ".join(edited(original, 1, 7)), " ".join(other), " ".join(original).upper()], file=1),
        document_table(["\n".join(other), " ".join(edited(original, 60, 8)), "Short\n"], file=2),
    ]
    checkpoint = deduplicated(store, tables)
    assert audit(checkpoint) == {
        "TEST/00000/000000000000": ("kept", None, None),
        "TEST/00000/000000000001": ("kept", None, None),
        "TEST/00000/000000000002": ("kept", None, None),
        "TEST/00001/000000000000": ("dropped", "minhash", "TEST/00000/000000000000"),
        "TEST/00001/000000000001": ("kept", None, None),
        "TEST/00001/000000000002": ("dropped", "exact", "TEST/00000/000000000000"),
        "TEST/00002/000000000000": ("dropped", "exact", "TEST/00001/000000000001"),
        "TEST/00002/000000000001": ("kept", None, None),
        "TEST/00002/000000000002": ("dropped", "exact", "TEST/00000/000000000002"),
    }
    kept = rows(checkpoint, "documents.parquet")
    given = [row for table in tables for row in table.to_pylist()]
    decisions = audit(checkpoint)
    assert kept == [row for row in given if decisions[row["id"]][0] == "kept"]
    counters = checkpoint.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"]) == (9, 5)
    assert (counters["dropped.exact"], counters["dropped.minhash"]) == (3, 1)
    assert counters["text_bytes_kept"] == sum(len(row["text"].encode()) for row in kept)


def test_an_exact_copy_of_a_dropped_document_duplicates_what_that_one_duplicates(store: Store) -> None:
    original = page(1)
    near = " ".join(edited(original, 2, 3))
    checkpoint = deduplicated(store, [document_table([" ".join(original), near, near + "\n"])])
    found = rows(checkpoint, "audit.parquet")
    assert [row["duplicate_of"] for row in found] == [None, "TEST/00000/000000000000", "TEST/00000/000000000000"]
    assert [row["rule"] for row in found] == [None, "minhash", "minhash"]
    wanted = reference.jaccard(reference.shingles(near.encode()), reference.shingles(" ".join(original).encode()))
    assert found[1]["similarity"] == found[2]["similarity"] == pytest.approx(wanted)


def test_documents_out_of_order_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = document_table([" ".join(page(i)) for i in range(6)])
    with pytest.raises(ValueError, match=r"TEST/00000/0+ comes after TEST/00000/0+5: documents must be in the order"):
        deduplicated(store, [table[3:], table[:3]])
    monkeypatch.setattr(corpus, "LEAST_IN_GROUP", 1)
    with pytest.raises(ValueError, match=r"TEST/00000/0+ would come after TEST/00000/0+5"):
        deduplicated(store, [table[3:], table[:3]], "b")


def test_how_members_are_cut_into_partitions_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(edited(page(i % 7), i % 5, i)) for i in range(60)]
    tables = [document_table(texts[first : first + 9], first) for first in range(0, 60, 9)]
    one = deduplicated(store, tables, "a")
    monkeypatch.setattr(clustering, "PARTITION_MEMBERS", 3)
    many = deduplicated(store, tables, "b")
    assert audit(one) == audit(many)
    assert one.manifest.counters["dropped.minhash"] > 10


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    texts = [" ".join(edited(page(i % 5), i % 3, i)) for i in range(30)]
    digests = set()
    for attempt in ("one", "two"):
        store = open_store(tmp_path / attempt)
        digests.add(
            deduplicated(store, [document_table(texts[:17]), document_table(texts[17:], 1)]).manifest.content_digest
        )
    assert len(digests) == 1


def test_odd_documents_pass(store: Store) -> None:
    odd = [b"", b" \n", b"word", b"\x00", b"\xed\xa0\x80 surrogate", b"a\x00b " * 400, "日本語 " * 3, b"Word"]
    checkpoint = deduplicated(store, [document_table([]), document_table(odd, 1), document_table([], 2)])
    decisions = [row["decision"] for row in rows(checkpoint, "audit.parquet")]
    # Two documents without a word are equal once normalised, and so are "word" and "Word".
    assert decisions == ["kept", "dropped", "kept", "kept", "kept", "kept", "kept", "dropped"]
    assert len(checkpoint.files("documents.parquet")) == 3


def test_a_shard_of_duplicates_only_keeps_none(store: Store) -> None:
    tables = [document_table([NEVER_UNIQUE], 0), document_table([NEVER_UNIQUE] * 40, 1)]
    checkpoint = deduplicated(store, tables)
    assert [file.rows for file in checkpoint.files("documents.parquet")] == [1, 0]
    assert checkpoint.manifest.metrics["largest_cluster"] == 41


def test_an_empty_corpus_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match="take more of the crawl"):
        deduplicated(store, [document_table([])])


def test_an_id_that_stands_twice_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"two documents carry the id TEST/00000/000000000000"):
        deduplicated(store, [document_table(["one"]), document_table(["two"])])


def test_a_real_crawl_loses_only_documents_that_resemble_a_kept_one(store: Store, data_dir: Path) -> None:
    texts = debian_texts(data_dir, 500)
    tables = [document_table(texts[first : first + 100], first) for first in range(0, len(texts), 100)]
    checkpoint = deduplicated(store, tables)
    by_id = {row["id"]: row["text"] for table in tables for row in table.select(["id", "text"]).to_pylist()}
    sets = {name: reference.shingles(text.encode()) for name, text in by_id.items()}
    found = rows(checkpoint, "audit.parquet")
    kept = [row["id"] for row in found if row["decision"] == "kept"]
    dropped = [row for row in found if row["decision"] == "dropped"]
    assert len(dropped) > 20
    for row in dropped:
        assert row["duplicate_of"] in kept and row["duplicate_of"] < row["id"]
        similarity = reference.jaccard(sets[row["id"]], sets[row["duplicate_of"]])
        if row["verified_by"] == "signature":
            # An estimate of 112 permutations: no closer than four standard errors to be counted on.
            assert abs(row["similarity"] - similarity) < 4 * (similarity * (1 - similarity) / 112) ** 0.5 + 0.01
            assert row["similarity"] > 0.9 and similarity > 0.77
        else:
            assert row["similarity"] == pytest.approx(similarity, abs=1e-6) and similarity >= 0.8
    assert {row["verified_by"] for row in dropped} == {"hash", "sets", "signature"}
    # Of the pairs that remain, those above the threshold are the ones that theory lets LSH miss.
    order = sorted(kept)
    missed = sum(
        reference.jaccard(sets[one], sets[other]) >= 0.8
        for i, one in enumerate(order)
        for other in order[:i]
        if 0.8 <= len(sets[one]) / max(1, len(sets[other])) <= 1.25
    )
    assert missed <= 0.12 * len(dropped) + 3 * np.sqrt(0.12 * len(dropped))
