"""The tokens node over several sources: weights, the held-out split across them, order within shards, statistics."""

import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.tokenizer import TokenizerSpec
from configs.tokens import TokensSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.files.sampling import copies
from ray_jobs.tokenizer.statistics import PERCENTILES, by_language, length_histogram, percentiles, upper_bounds
from tests.dedup.corpus import computed, document_table, published, rows
from tests.tokenizer.test_job import SENTENCES, encoder_of, stored, tokenizer

OLD, NEW = SENTENCES[:120], SENTENCES[120:]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def source(store: Store, name: str, texts: list[str], shards: int = 2) -> Checkpoint:
    size = -(-len(texts) // shards)
    tables = [
        document_table(texts[first : first + size], number, name.upper())
        for number, first in enumerate(range(0, len(texts), size))
    ]
    return published(store, tables, name, {"text_bytes_kept": sum(len(text.encode()) for text in texts)})


@pytest.fixture
def sources(store: Store) -> dict[str, Checkpoint]:
    return {"documents.old": source(store, "old", OLD, 3), "documents.new": source(store, "new", NEW)}


def tokens(sources: Mapping[str, Checkpoint], **spec: object) -> Checkpoint:
    store = next(iter(sources.values())).store
    trained = tokenizer(next(iter(sources.values())))
    return computed(TokensSpec(**{"heldout_share": 0, **spec}), {**sources, "tokenizer": trained}, store)


def taken(checkpoint: Checkpoint, part: str = "train") -> Counter[str]:
    """How often each document stands there, its source in front of its id."""
    return Counter(f"{row['source']}:{row['id']}" for row in rows(checkpoint, "index.parquet", part))


def of(counted: Counter[str], name: str) -> list[int]:
    return [count for key, count in counted.items() if key.startswith(f"{name}:")]


def test_without_weights_every_document_of_every_source_stands_once(sources: dict[str, Checkpoint]) -> None:
    checkpoint = tokens(sources)
    counted = taken(checkpoint)
    assert of(counted, "old") == [1] * 120 and of(counted, "new") == [1] * 80
    index = rows(checkpoint, "index.parquet", "train")
    # The sources' files take turns: the first shards hold some of each.
    shards = {row["shard"]: row["id"].rpartition("/")[0] for row in index}
    assert shards == {0: "OLD/00000", 1: "NEW/00000", 2: "OLD/00001", 3: "NEW/00001", 4: "OLD/00002"}


def test_a_weight_is_how_often_a_source_stands_up_to_one_document_a_file(sources: dict[str, Checkpoint]) -> None:
    checkpoint = tokens(sources, weights={"old": 0.5, "new": 2.25})
    counted = taken(checkpoint)
    old, new = of(counted, "old"), of(counted, "new")
    assert set(old) == {1} and len(old) == 60  # three files of 40 documents
    assert Counter(new) == {2: 60, 3: 20}  # two of 40
    encoder, arrays = encoder_of(tokenizer(sources["documents.old"])), stored(checkpoint, "train")
    texts = {row["id"]: row["text"] for one in sources.values() for row in rows(one, "documents.parquet")}
    for row in rows(checkpoint, "index.parquet", "train"):
        ids = arrays[row["shard"]][row["start"] : row["start"] + row["length"]]
        assert encoder.decode(ids[:-1].tolist()) == texts[row["id"]] and ids[-1] == encoder.end_of_text
    assert checkpoint.manifest.counters["train_num_documents"] == 60 + 180


def test_a_weight_of_zero_leaves_a_source_out_of_both_parts(sources: dict[str, Checkpoint]) -> None:
    checkpoint = tokens(sources, weights={"new": 0}, heldout_share=0.2)
    for part in ("train", "heldout"):
        assert {row["source"] for row in rows(checkpoint, "index.parquet", part)} == {"old"}
    with pytest.raises(ValueError, match=r"every source has weight 0: give one of new, old another in tokens\.weights"):
        tokens(sources, weights={"new": 0, "old": 0})


def test_weights_of_an_unknown_source_are_refused_with_those_there_are(sources: dict[str, Checkpoint]) -> None:
    with pytest.raises(ValueError, match=r"names 'odl', which is no source: did you mean 'old'\? There are: new, old"):
        tokens(sources, weights={"odl": 2})
    alone = {"documents": sources["documents.old"]}
    with pytest.raises(ValueError, match="there are: documents"):
        tokens(alone, weights={"old": 2})
    assert set(taken(tokens(alone, weights={"documents": 2})).values()) == {2}


def test_copies_are_nested_exact_to_one_a_file_and_right_on_average() -> None:
    ids = [f"c/{i}" for i in range(37)]
    before = copies(ids, 0, "a/0", 1)
    for weight in (0.1, 0.3, 0.99, 1, 1.01, 2.5, 3):
        now = copies(ids, weight, "a/0", 1)
        assert (now >= before).all() and abs(now.sum() - weight * len(ids)) < 1
        assert set(now.tolist()) <= {int(weight), int(weight) + 1}
        before = now
    # Files of one document each: a third of 3,000; 4 standard deviations are 103.
    drawn = sum(int(copies([f"c/{i}"], 1 / 3, f"a/{i}", 1)[0]) for i in range(3000))
    assert abs(drawn - 1000) < 103
    assert copies([], 0.5, "a/0", 1).tolist() == []


def test_a_text_is_held_out_in_all_sources_or_in_none(store: Store) -> None:
    both = {"documents.a": source(store, "a", SENTENCES), "documents.b": source(store, "b", SENTENCES[::-1])}
    checkpoint = tokens(both, heldout_share=0.2, weights={"a": 3})
    texts = {row["id"]: row["text"] for one in both.values() for row in rows(one, "documents.parquet")}
    train, heldout = (
        [texts[row["id"]] for row in rows(checkpoint, "index.parquet", part)] for part in ("train", "heldout")
    )
    assert not set(train) & set(heldout) and set(train) | set(heldout) == set(SENTENCES)
    assert set(Counter(heldout).values()) == {2}  # once of each source, whatever it weighs
    assert set(Counter(train).values()) == {4}
    # A later crawl holds out what an earlier one did.
    alone = tokens({"documents": both["documents.a"]}, heldout_share=0.2)
    assert {texts[row["id"]] for row in rows(alone, "index.parquet", "heldout")} == set(heldout)


def test_documents_of_a_shard_stand_in_an_order_of_the_seed(store: Store) -> None:
    documents = {"documents": source(store, "one", SENTENCES, 1)}
    orders = [[row["id"] for row in rows(tokens(documents, seed=seed), "index.parquet", "train")] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) != orders[0]
    places = np.array([int(id[-12:]) for id in orders[0]])
    # Two neighbours of the crawl stand side by side about twice in a random order.
    assert (np.abs(np.diff(places)) == 1).sum() < 12
    twice = [row["id"] for row in rows(tokens(documents, weights={"documents": 2}), "index.parquet", "train")]
    assert sum(one == two for one, two in itertools.pairwise(twice)) < 8


def test_statistics_are_those_of_the_index(sources: dict[str, Checkpoint]) -> None:
    checkpoint = tokens(sources, weights={"new": 2}, heldout_share=0.2)
    index = rows(checkpoint, "index.parquet", "train")
    counters, metrics = checkpoint.manifest.counters, checkpoint.manifest.metrics
    for name in ("old", "new"):
        own = [row for row in index if row["source"] == name]
        assert counters[f"train.{name}.en.documents"] == len(own)
        assert counters[f"train.{name}.en.tokens"] == sum(row["length"] for row in own)
        assert counters[f"train.{name}.en.bytes"] == sum(row["bytes"] for row in own)
        heldout = [row for row in rows(checkpoint, "index.parquet", "heldout") if row["source"] == name]
        assert counters[f"heldout.{name}.en.tokens"] == sum(row["length"] for row in heldout) > 0
    lengths = np.array([row["length"] for row in index])
    for p in PERCENTILES:
        exact = np.percentile(lengths, p, method="inverted_cdf")
        assert exact <= metrics[f"length_p{p}"] <= exact * 1.07
    assert metrics["vocab_used"] == len(np.unique(np.concatenate(stored(checkpoint, "train"))))
    assert metrics["vocab_used_share"] == pytest.approx(metrics["vocab_used"] / metrics["vocab_size"], abs=1e-4)


def test_length_bounds_are_close_and_above() -> None:
    lengths = np.arange(1, 70_000)
    bounds = upper_bounds(lengths)
    assert (bounds >= lengths).all() and (bounds[:32] == lengths[:32]).all()
    assert (bounds <= lengths * 1.0626).all() and (np.diff(bounds) >= 0).all()
    assert len(length_histogram(lengths)) < 32 + 16 * 12 + 16
    assert percentiles({}) == {}


def test_a_tokenizer_learns_from_all_sources(sources: dict[str, Checkpoint], store: Store) -> None:
    total = sum(one.manifest.counters["text_bytes_kept"] for one in sources.values())
    trained = computed(TokenizerSpec(vocab_size=400, heldout_bytes=0), sources, store)
    assert trained.manifest.counters["sample_bytes"] == total
    together = source(store, "together", NEW + OLD)
    assert [file.sha256 for file in trained.manifest.outputs] == [
        file.sha256 for file in tokenizer(together, heldout_bytes=0).manifest.outputs
    ]


def test_a_text_is_measured_on_or_trained_on_whatever_its_copies(store: Store) -> None:
    both = {"documents.a": source(store, "a", SENTENCES), "documents.b": source(store, "b", SENTENCES[::-1])}
    trained = computed(TokenizerSpec(vocab_size=400), both, store)
    listed = [entry.path for entry in store.list(NodePath("tokenizer", trained.key).stage_data("words"))]
    tables = [pq.read_table(pa.BufferReader(store.get(path))) for path in listed if "heldout.parquet" in path]
    held_out = Counter(text for table in tables for text in table["text"].to_pylist())
    assert held_out and set(held_out.values()) == {2}
    assert trained.manifest.counters["sample_documents"] + held_out.total() == 2 * len(SENTENCES)


def test_copies_of_the_only_text_are_trained_on(store: Store) -> None:
    copied = source(store, "copied", SENTENCES[:1] * 4)
    assert tokenizer(copied, min_frequency=1).manifest.counters["sample_documents"] == 4


def test_parts_that_come_out_empty_are_refused_with_the_reason(store: Store) -> None:
    trained = tokenizer(source(store, "some", SENTENCES))
    nothing = published(store, [document_table([])], "nothing", {"text_bytes_kept": 0})
    with pytest.raises(ValueError, match="filter kept no document: take more of the crawl"):
        computed(TokensSpec(), {"documents": nothing, "tokenizer": trained}, store)
    one = source(store, "one", SENTENCES[:1])
    with pytest.raises(ValueError, match=r"no document to train on, all 1 are held out: .*lower tokens\.heldout_share"):
        computed(TokensSpec(heldout_share=1 - 1e-9), {"documents": one, "tokenizer": trained}, store)
    light = TokensSpec(heldout_share=0, weights={"documents": 1e-9})
    with pytest.raises(ValueError, match=r"no document to train on .*raise tokens\.weights"):
        computed(light, {"documents": one, "tokenizer": trained}, store)


def test_ids_above_65535_are_stored_in_four_bytes(store: Store) -> None:
    draw = np.random.default_rng(1)
    words = draw.integers(ord("a"), ord("z") + 1, (30_000, 12)).astype(np.uint8).tobytes().decode()
    texts = [" ".join(words[first : first + 12] for first in range(0, len(words), 12))[n::50] for n in range(50)]
    documents = source(store, "random", texts)
    trained = tokenizer(documents, vocab_size=(1 << 16) + 500, min_frequency=1)
    checkpoint = computed(TokensSpec(heldout_share=0.1), {"documents": documents, "tokenizer": trained}, store)
    assert checkpoint.manifest.metrics["dtype"] == "uint32"
    encoder, seen = encoder_of(trained), 0
    by_id = {row["id"]: row["text"] for row in rows(documents, "documents.parquet")}
    for part in ("train", "heldout"):
        arrays = stored(checkpoint, part)
        for row in rows(checkpoint, "index.parquet", part):
            ids = arrays[row["shard"]][row["start"] : row["start"] + row["length"] - 1]
            assert encoder.decode(ids.tolist()) == by_id[row["id"]]
            seen += int((ids >= 1 << 16).sum())
    assert seen > 0


def test_the_facts_show_sources_languages_lengths_and_vocabulary(sources: dict[str, Checkpoint]) -> None:
    from tasks.tokens import NODE

    manifest = tokens(sources, weights={"new": 2}, heldout_share=0.1).manifest
    facts = dict(NODE.facts(manifest))
    train, counters = manifest.counters["train_num_tokens"], manifest.counters
    new = counters["train.new.en.tokens"]
    assert facts["source new"] == f"{new:,} tokens, {100 * new / train:.1f}%"
    assert facts["language en"] == f"{train:,} tokens, 100.0%"
    assert facts["vocabulary in use"].endswith(" of 400 tokens") and facts["stored as"] == "uint16"
    assert "half " in facts["tokens a document"] and facts["held out"].startswith(
        f"{counters['heldout_num_tokens']:,} "
    )
    many = manifest.model_copy(update={"counters": {f"train.a.l{i:02}.tokens": 100 - i for i in range(20)}})
    shown = [name for name, _ in NODE.facts(many) if "language" in name]
    assert shown == [*(f"language l{i:02}" for i in range(8)), "12 other languages"]


def test_a_document_without_a_language_is_counted_as_undetermined() -> None:
    assert by_language(["en", None, "de", "en"], [10, 5, 7, 1], [4, 3, 2, 1]) == {
        "de": [7, 1, 1],
        "en": [11, 3, 2],
        "und": [5, 2, 1],
    }
