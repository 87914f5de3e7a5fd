"""Documents as crawls have them at their worst: each is encoded once, and comes back but for what is no UTF-8."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.fan_out import UserError
from tests.dedup.corpus import document_table, published, rows
from tests.scrub.test_bad_input import ODD
from tests.tokenizer.test_job import SENTENCES, encoder_of, stored, tokenizer, tokens

LARGE_BYTES = 30_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def filtered(store: Store, tables: list[pa.Table]) -> Checkpoint:
    """The tables as a node before left them, with the one counter that the tokenizer reads."""
    num_bytes = sum(len(text.as_py() or b"") for one in tables for text in one["text"].cast(pa.large_binary()))
    return published(store, tables, counters={"text_bytes_kept": num_bytes})


def decoded(checkpoint: Checkpoint, trained: Checkpoint) -> dict[str, str]:
    """Every document's text out of the tokens of both parts, by id; no document is in both."""
    encoder = encoder_of(trained)
    texts: dict[str, str] = {}
    for part in ("train", "heldout"):
        arrays = stored(checkpoint, part)
        for row in rows(checkpoint, "index.parquet", part):
            assert row["id"] not in texts
            texts[row["id"]] = encoder.decode(arrays[row["shard"]][row["start"] :][: row["length"] - 1].tolist())
    counters = checkpoint.manifest.counters
    assert counters["train_num_documents"] + counters["heldout_num_documents"] == len(texts)
    return texts


@pytest.mark.parametrize("model", ["bpe", "sentencepiece-bpe", "sentencepiece-unigram"])
def test_every_odd_document_is_encoded_once_and_comes_back(store: Store, model: str) -> None:
    tables = [document_table(list(ODD.values())), document_table([], 1), document_table(SENTENCES, 2)]
    documents = filtered(store, tables)
    trained = tokenizer(documents, model=model, vocab_size=600)
    assert trained.manifest.metrics["round_trip_failures"] == 0
    checkpoint = tokens(documents, trained, heldout_share=0.3)
    texts = decoded(checkpoint, trained)
    wanted = [data.decode(errors="replace") for data in ODD.values()] + SENTENCES
    assert list(texts.keys() - {id for one in tables for id in one["id"].to_pylist()}) == []
    assert [texts[id] for one in tables for id in one["id"].to_pylist()] == wanted
    repaired = sum(data != data.decode(errors="replace").encode() for data in ODD.values())
    counters = checkpoint.manifest.counters
    assert counters["train_documents_repaired"] + counters["heldout_documents_repaired"] == repaired > 3


def test_a_shard_of_duplicates_gives_the_same_tokens_again_and_again(store: Store) -> None:
    documents = filtered(store, [document_table([SENTENCES[0]] * 300)])
    trained = tokenizer(documents)
    checkpoint = tokens(documents, trained, heldout_share=0)
    (array,) = stored(checkpoint, "train")
    assert len(decoded(checkpoint, trained)) == 300
    assert (array.reshape(300, -1) == array.reshape(300, -1)[0]).all()


@pytest.mark.parametrize("model", ["bpe", "sentencepiece-bpe", "sentencepiece-unigram"])
@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_without_any_text_the_error_says_what_to_do(store: Store, texts: list[str], model: str) -> None:
    with pytest.raises(ValueError, match=r"holds no text: raise tokenizer\.sample_bytes, or take more of the crawl"):
        tokenizer(filtered(store, [document_table(texts)]), model=model)


@pytest.mark.parametrize("model", ["sentencepiece-bpe", "sentencepiece-unigram"])
def test_a_vocabulary_too_small_for_the_characters_is_refused_with_what_to_do(store: Store, model: str) -> None:
    with pytest.raises(UserError, match=r"raise tokenizer\.vocab_size"):
        tokenizer(filtered(store, [document_table(SENTENCES)]), model=model, vocab_size=270)


@pytest.mark.parametrize("model", ["bpe", "sentencepiece-bpe", "sentencepiece-unigram"])
def test_a_vocabulary_larger_than_the_sample_can_fill_is_as_large_as_it_gets(store: Store, model: str) -> None:
    trained = tokenizer(filtered(store, [document_table(["ab ab ab"] * 9)]), model=model, vocab_size=5000)
    assert 262 <= trained.manifest.metrics["vocab_size"] < 310
    assert encoder_of(trained).vocab_size == trained.manifest.metrics["vocab_size"]


def test_one_word_documents_alone_are_enough(store: Store) -> None:
    documents = filtered(store, [document_table(["word"] * 20 + ["a", "", "日"])])
    trained = tokenizer(documents, vocab_size=300)
    checkpoint = tokens(documents, trained, heldout_share=0)
    texts = decoded(checkpoint, trained)
    assert [texts[id] for id in sorted(texts)] == ["word"] * 20 + ["a", "", "日"]


@pytest.mark.slow
def test_a_large_document_takes_little_more_memory_than_itself(tmp_path: Path) -> None:
    """In a process of its own, whose peak is its own. One of 100 MB passes as well, in minutes."""
    code = f"""
import re, sys
from pathlib import Path
from ray_jobs.checkpoint.store import open_store
from tests.tokenizer.test_bad_input import document_table, filtered, tokenizer, tokens
line = "The river carries the water of many small streams down to the mill; it has 24 wheels.\\n"
text = line * ({LARGE_BYTES} // len(line))
store = open_store(Path(sys.argv[1]))
documents = filtered(store, [document_table([text])])
trained = tokenizer(documents, sample_bytes={2 * LARGE_BYTES})
checkpoint = tokens(documents, trained, heldout_share=0)
# getrusage counts what the parent held before this process began; this does not.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
assert checkpoint.manifest.counters["train_num_bytes"] == len(text)
assert checkpoint.manifest.counters["train_num_documents"] == 1
print(peak)
"""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    peak_bytes = int(shown.stdout.split()[-1]) * 1024
    print(f"\npeak {peak_bytes / 1e6:.0f} MB")
    assert peak_bytes < 1.2e9  # encoded whole it takes 3.6e9
