import hashlib
import itertools
import json
import logging
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.classifier import PinnedUrl
from configs.scrub import ScrubSpec
from configs.tokenizer import OtherTokenizer, TokenizerSpec
from configs.tokens import TokensSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.files.sampling import places
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.loader import TokenDataset
from ray_jobs.tokenizer.streams import stream_of
from tests.dedup.corpus import computed, debian_texts, document_table, published, rows

SENTENCES = [f"Sentence number {i} says that {i % 7} times {i % 5} is {(i % 7) * (i % 5)}.\n" * 4 for i in range(200)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def scrubbed(store: Store, tables: list[pa.Table], name: str = "corpus") -> Checkpoint:
    return computed(ScrubSpec(), {"documents": published(store, tables, name)}, store)


def shards(texts: list[str], size: int) -> list[pa.Table]:
    return [document_table(texts[first : first + size], first) for first in range(0, len(texts), size)]


def tokenizer(documents: Checkpoint, **spec: object) -> Checkpoint:
    made = TokenizerSpec(**{"vocab_size": 400, **spec})
    return computed(made, {"documents": documents}, documents.store)


def tokens(documents: Checkpoint, trained: Checkpoint, **spec: object) -> Checkpoint:
    made = TokensSpec(**{"heldout_share": 0.1, **spec})
    return computed(made, {"documents": documents, "tokenizer": trained}, documents.store)


def encoder_of(trained: Checkpoint) -> Encoder:
    return Encoder(trained.read(trained.file("tokenizer.json")))


def stored(checkpoint: Checkpoint, part: str) -> list[np.ndarray]:
    dtype = checkpoint.manifest.metrics["dtype"]
    return [np.frombuffer(checkpoint.read(file), dtype=dtype) for file in checkpoint.files("tokens.bin", part)]


def test_every_document_stands_whole_in_one_part_where_its_index_says(store: Store) -> None:
    tables = [*shards(SENTENCES, 70), document_table([], 999)]
    documents = scrubbed(store, tables)
    trained = tokenizer(documents)
    checkpoint = tokens(documents, trained)
    encoder = encoder_of(trained)
    texts = {row["id"]: row["text"] for row in rows(documents, "documents.parquet")}
    seen: dict[str, str] = {}
    for part in ("train", "heldout"):
        arrays = stored(checkpoint, part)
        index = rows(checkpoint, "index.parquet", part)
        for row in index:
            ids = arrays[row["shard"]][row["start"] : row["start"] + row["length"]].tolist()
            assert ids[-1] == encoder.end_of_text and encoder.end_of_text not in ids[:-1]
            assert encoder.decode(ids[:-1]) == texts[row["id"]]
            assert row["bytes"] == len(texts[row["id"]].encode())
            assert row["id"] not in seen
            seen[row["id"]] = part
        counters = checkpoint.manifest.counters
        assert counters[f"{part}_num_documents"] == len(index)
        assert (
            counters[f"{part}_num_tokens"] == sum(len(array) for array in arrays) == sum(row["length"] for row in index)
        )
        assert counters[f"{part}_num_bytes"] == sum(row["bytes"] for row in index)
    assert seen.keys() == texts.keys()
    # 20 of 200 expected; 4 standard deviations are 17.
    assert 3 < sum(part == "heldout" for part in seen.values()) < 37


def test_the_heldout_part_does_not_depend_on_how_documents_are_cut_into_shards(store: Store) -> None:
    table = document_table(SENTENCES)
    parts = []
    for number, cuts in enumerate([[0, 200], [0, 11, 11, 150, 200]]):
        tables = [table[first:end] for first, end in itertools.pairwise(cuts)]
        documents = scrubbed(store, tables, f"cut{number}")
        checkpoint = tokens(documents, tokenizer(documents))
        parts.append([row["id"] for row in rows(checkpoint, "index.parquet", "heldout")])
    assert parts[0] == parts[1]
    other_seed = tokens(documents, tokenizer(documents), seed=2)
    assert [row["id"] for row in rows(other_seed, "index.parquet", "heldout")] != parts[0]


def test_a_larger_heldout_share_holds_the_smaller_one() -> None:
    ids = [f"c/00000/{i:012d}" for i in range(20_000)]
    values = places(ids, "heldout", 1)
    assert values.min() >= 0 and values.max() < 1
    assert abs((values < 0.1).mean() - 0.1) < 4 * (0.09 / len(ids)) ** 0.5
    # Samples for other purposes are independent of it.
    other = places(ids, "tokenizer-sample", 1)
    assert abs(np.corrcoef(values, other)[0, 1]) < 4 / len(ids) ** 0.5


def test_the_loader_reads_what_the_node_leaves(store: Store) -> None:
    documents = scrubbed(store, shards(SENTENCES, 70))
    trained = tokenizer(documents)
    checkpoint = tokens(documents, trained)
    dataset = TokenDataset(stream_of(checkpoint, "train"), sequence_length=32, seed=1)
    stream = np.concatenate(stored(checkpoint, "train"))
    batch = dataset.batch(0, len(dataset))
    order = np.argsort(dataset.windows(0, len(dataset)))
    assert np.array_equal(batch[order][:, :-1].ravel(), stream[: len(dataset) * 32])
    assert batch.max() < encoder_of(trained).vocab_size


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        documents = scrubbed(open_store(tmp_path / attempt), shards(SENTENCES, 50))
        trained = tokenizer(documents)
        digests.add((trained.manifest.content_digest, tokens(documents, trained).manifest.content_digest))
    assert len(digests) == 1


def test_the_sample_is_of_about_the_size_asked_for_and_does_not_depend_on_shards(store: Store) -> None:
    whole = scrubbed(store, [document_table(SENTENCES)], "whole")
    total = whole.manifest.counters["text_bytes_kept"]
    half = tokenizer(whole, sample_bytes=total // 2).manifest.outputs
    cut = scrubbed(store, [document_table(SENTENCES)[:90], document_table(SENTENCES)[90:]], "cut")
    assert [file.sha256 for file in tokenizer(cut, sample_bytes=total // 2).manifest.outputs] == [
        file.sha256 for file in half
    ]
    counters = tokenizer(whole, sample_bytes=total // 2).manifest.counters
    assert 0.35 * total < counters["sample_bytes"] < 0.65 * total
    every = tokenizer(whole, sample_bytes=10 * total, heldout_bytes=0)
    assert every.manifest.counters["sample_bytes"] == total
    assert every.manifest.counters["heldout_documents"] == 0 and "bytes_per_token" not in every.manifest.metrics


def test_headline_figures_are_what_the_tokens_say(store: Store) -> None:
    documents = scrubbed(store, shards(SENTENCES, 200))
    trained = tokenizer(documents)
    checkpoint = tokens(documents, trained, heldout_share=0)
    encoder = encoder_of(trained)
    num_tokens = sum(len(encoder.encode(text)) for text in SENTENCES)
    num_bytes = sum(len(text) for text in SENTENCES)
    assert trained.manifest.metrics["bytes_per_token"] == pytest.approx(num_bytes / num_tokens, rel=0.1)
    assert checkpoint.manifest.metrics["bytes_per_token"] == pytest.approx(num_bytes / (num_tokens + 200), abs=1e-3)
    assert checkpoint.manifest.counters["heldout_num_documents"] == 0


def test_what_is_measured_on_was_not_trained_on(store: Store) -> None:
    checkpoint = tokenizer(scrubbed(store, shards(SENTENCES, 200)))
    counters, metrics = checkpoint.manifest.counters, checkpoint.manifest.metrics
    assert counters["sample_documents"] + counters["heldout_documents"] == 200
    assert 3 <= counters["heldout_documents"] <= 20  # 10 are expected
    held_out = np.flatnonzero(places(SENTENCES, "tokenizer-sample", 1) >= 0.95)
    texts = [SENTENCES[place] for place in held_out]
    encoder = encoder_of(checkpoint)
    (told,) = json.loads(checkpoint.read(checkpoint.file("measures.json")))
    english = told["languages"]["en"]
    assert english == told["total"]
    assert english["documents"] == counters["heldout_documents"] and metrics["round_trip_failures"] == 0
    assert english["bytes"] == sum(len(text.encode()) for text in texts)
    assert english["characters"] == sum(len(text) for text in texts)
    assert english["words"] == sum(len(text.split()) for text in texts)
    assert english["tokens"] == sum(len(encoder.encode(text)) for text in texts)
    numbers = [number for text in texts for number in re.findall(r"\d+", text)]
    assert (english["numbers"], english["digits"]) == (len(numbers), sum(map(len, numbers)))
    assert english["number_tokens"] == sum(len(encoder.encode("=" + number)) - 1 for number in numbers)
    used = {token for text in texts for token in encoder.encode(text)}
    assert told["vocabulary_used"] == len(used)
    assert metrics["bytes_per_token"] == pytest.approx(english["bytes"] / english["tokens"], abs=1e-3)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe", "sentencepiece-unigram"])
def test_every_kind_goes_all_the_way_to_tokens(store: Store, kind: str) -> None:
    documents = scrubbed(store, shards(SENTENCES, 100))
    trained = tokenizer(documents, model=kind, vocab_size=420, chat_template="llama2")
    assert trained.manifest.metrics["round_trip_failures"] == 0
    names = {file.name for file in trained.manifest.outputs if file.stage == "tokenizer"}
    assert ("tokenizer.model" in names) == (kind != "bpe") and "chat_template.jinja" in names
    checkpoint = tokens(documents, trained, heldout_share=0)
    encoder = encoder_of(trained)
    texts = {row["id"]: row["text"] for row in rows(documents, "documents.parquet")}
    arrays = stored(checkpoint, "train")
    for row in rows(checkpoint, "index.parquet", "train"):
        ids = arrays[row["shard"]][row["start"] :][: row["length"]].tolist()
        assert ids[-1] == encoder.end_of_text and encoder.decode(ids[:-1]) == texts[row["id"]]


def test_others_are_measured_on_the_same_text(store: Store, data_dir: Path) -> None:
    folder = data_dir / "tokenizers" / "gpt2"
    vocabulary, merges = (
        PinnedUrl(url=str(folder / name), sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest())
        for name in ("encoder.json", "vocab.bpe")
    )
    documents = scrubbed(store, shards(SENTENCES, 200))
    gpt2 = OtherTokenizer(vocabulary=vocabulary, merges=merges)
    checkpoint = tokenizer(documents, compared_with={"gpt2": gpt2})
    ours, theirs = json.loads(checkpoint.read(checkpoint.file("measures.json")))
    assert (ours["name"], theirs["name"], theirs["vocab_size"]) == ("bpe-gpt2", "gpt2", 50257)
    for name in ("documents", "bytes", "characters", "words", "numbers"):
        assert ours["total"][name] == theirs["total"][name]
    assert theirs["round_trip_failures"] == 0
    assert theirs["code"]["bytes"] / theirs["code"]["tokens"] > 1.5
    with pytest.raises(ValueError, match="`vocabulary` and `merges`"):
        OtherTokenizer(vocabulary=vocabulary)


def test_every_kind_is_trained_on_the_same_sample_and_measured_beside(store: Store) -> None:
    documents = scrubbed(store, shards([*SENTENCES, *(f"\u2581{i} sign and blank {i}. " * 9 for i in range(300))], 100))
    beside = ("sentencepiece-unigram", "bpe-llama3", "sentencepiece-bpe")
    together = tokenizer(documents, vocab_size=420, kinds_beside=beside)
    measured = json.loads(together.read(together.file("measures.json")))
    assert [one["name"] for one in measured] == ["bpe-gpt2", *beside]
    for told in measured:
        model, _, cut = told["name"].partition("-") if told["name"].startswith("bpe") else (told["name"], "", "gpt2")
        alone = tokenizer(documents, vocab_size=420, model=model, pre_tokenizer=cut)
        assert json.loads(alone.read(alone.file("measures.json"))) == [told]
        assert told["round_trip_failures"] == 0
        assert (told["blank_signs"] > 0) == told["name"].startswith("sentencepiece")
    with pytest.raises(ValueError, match="bpe-gpt2 would stand twice"):
        TokenizerSpec(kinds_beside=("bpe-gpt2",))


def test_documents_of_no_known_language_are_a_language_of_their_own(store: Store) -> None:
    table = document_table(SENTENCES)
    names = pa.array(["en" if place % 2 else None for place in range(200)], pa.string())
    trained = tokenizer(scrubbed(store, [table.set_column(2, "language", names)]))
    (told,) = json.loads(trained.read(trained.file("measures.json")))
    assert sorted(told["languages"]) == ["", "en"]
    assert trained.manifest.counters["sample_documents"] + trained.manifest.counters["heldout_documents"] == 200


@pytest.mark.parametrize(("alpha", "share"), [(1.0, 1 / 5), (0.0, 1 / 2)])
def test_languages_share_the_sample_as_alpha_says(store: Store, alpha: float, share: float) -> None:
    welsh = [place % 5 == 0 for place in range(1000)]
    table = document_table([f"{'cymraeg' if one else 'english'} {place:04d}" for place, one in enumerate(welsh)])
    names = pa.array(["cy" if one else "en" for one in welsh])
    documents = scrubbed(store, [table.set_column(2, "language", names)])
    size = documents.manifest.counters["text_bytes_kept"] // 4
    trained = tokenizer(documents, sample_bytes=size, language_alpha=alpha, heldout_bytes=0)
    listed = store.list(NodePath("tokenizer", trained.key).stage_data("words"))
    (entry,) = [entry for entry in listed if "words-gpt2.parquet" in entry.path]
    counted = pq.read_table(pa.BufferReader(store.get(entry.path))).to_pylist()
    drawn = {row["word"].decode(): row["count"] for row in counted}
    # 250 documents are drawn: 4 standard deviations of the share are .1 at the most.
    assert drawn["cymraeg"] / (drawn["cymraeg"] + drawn["english"]) == pytest.approx(share, abs=0.1)
    assert trained.manifest.counters["sample_bytes"] == pytest.approx(size, rel=0.25)


def test_odd_documents_are_encoded_and_their_repairs_counted(store: Store) -> None:
    odd = [b"", b"\x00", b"\xed\xa0\x80 lone surrogate", b"word", b"<|endoftext|><|pad|>", "日本語 😀".encode()]
    documents = scrubbed(store, [document_table(odd), *shards(SENTENCES, 100)])
    trained = tokenizer(documents)
    checkpoint = tokens(documents, trained, heldout_share=0)
    encoder = encoder_of(trained)
    first = stored(checkpoint, "train")[0]
    texts = ["", "\x00", "\ufffd\ufffd\ufffd lone surrogate", "word", "<|endoftext|><|pad|>", "日本語 😀"]
    assert (first == encoder.end_of_text).sum() == len(odd)
    assert (first == encoder.pad).sum() == 0
    order = [int(row["id"][-12:]) for row in rows(checkpoint, "index.parquet", "train") if row["shard"] == 0]
    assert sorted(order) == list(range(len(odd)))
    assert encoder.decode(first.tolist()) == "".join(f"{texts[place]}<|endoftext|>" for place in order)
    assert checkpoint.manifest.counters["train_documents_repaired"] == 1


def test_a_vocabulary_that_cannot_be_filled_is_recorded(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    documents = scrubbed(store, shards(SENTENCES[:20], 20))
    with caplog.at_level(logging.WARNING, logger="headrace"):
        trained = tokenizer(documents, vocab_size=50_000)
    assert 260 < int(trained.manifest.metrics["vocab_size"]) < 1000
    assert "of 50000 tokens" in caplog.text
    assert tokens(documents, trained).manifest.metrics["vocab_size"] == trained.manifest.metrics["vocab_size"]


def test_what_cannot_be_computed_is_refused_with_what_to_do(store: Store) -> None:
    blank = scrubbed(store, [document_table(["", ""])], "blank")
    with pytest.raises(ValueError, match=r"raise tokenizer\.sample_bytes"):
        tokenizer(blank)
    documents = scrubbed(store, shards(SENTENCES, 100))
    with pytest.raises(ValueError, match=r"raise tokenizer\.sample_bytes"):
        tokenizer(documents, sample_bytes=1)
    trained = tokenizer(documents)
    with pytest.raises(ValueError, match=r"raise tokens\.heldout_share"):
        tokens(documents, trained, heldout_share=1e-6)


def test_a_real_crawl_comes_back_byte_for_byte(store: Store, data_dir: Path) -> None:
    documents = scrubbed(store, shards(debian_texts(data_dir, 40), 20))
    trained = tokenizer(documents, vocab_size=2048)
    checkpoint = tokens(documents, trained)
    encoder = encoder_of(trained)
    texts = {row["id"]: row["text"] for row in rows(documents, "documents.parquet")}
    for part in ("train", "heldout"):
        arrays = stored(checkpoint, part)
        for row in rows(checkpoint, "index.parquet", part):
            ids = arrays[row["shard"]][row["start"] : row["start"] + row["length"] - 1]
            assert encoder.decode(ids.tolist()) == texts[row["id"]]
    assert 2 < float(trained.manifest.metrics["bytes_per_token"]) < 6
