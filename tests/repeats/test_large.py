"""Documents of a size that crawls seldom have: time and memory follow the size, whatever the text."""

import itertools
from pathlib import Path

import pyarrow as pa
import pytest

from configs.repeats import RepeatsSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.repeats import job
from tests.dedup.corpus import computed, document_table, published, rows, table
from tests.memory import peak_bytes

SPEC = RepeatsSpec()
WORDS = " ".join(f"{a}{b}" for a, b in itertools.product(["river", "mill", "wheel", "stream", "water"], range(400)))


def test_memory_for_the_hashes_of_a_file_is_a_small_multiple_of_its_text(tmp_path: Path) -> None:
    # Every line is another one, and no window of words comes twice.
    text = "\n".join(f"line {i} of a long text which has {i * 7919 % 100_003} words" for i in range(600_000)).encode()
    store = open_store(tmp_path / "store")
    source = published(store, [document_table([text]), document_table([text[:10_000]], 1)])
    context = job.Context(SPEC, store, tuple(source.files("documents.parquet")), 2, {})
    job.hash_file({"input": 1}, context)
    assert peak_bytes(lambda: job.hash_file({"input": 0}, context)) < 21 * len(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param(b"x" * 100_000_000, None, id="one word"),
        pytest.param(b"\x00" * 100_000_000, None, id="NULs"),
        pytest.param(b"\xff\xc3\xed\xa0 " * 20_000_000, 50, id="no UTF-8"),
        pytest.param((WORDS + "\n").encode() * (100_000_000 // len(WORDS)), 2000, id="words"),
    ],
)
def test_a_document_of_100_mb_is_cut_in_one_piece(tmp_path: Path, text: bytes, kept: int | None) -> None:
    store = open_store(tmp_path / "store")
    done = computed(SPEC, {"documents": published(store, [document_table([text])])}, store)
    counters = done.manifest.counters
    assert counters["documents_kept"] == 1
    (left,) = table(done, done.file("documents.parquet"))["text"].cast(pa.large_binary()).to_pylist()
    assert len(left.split()) == counters["words_kept"] == (kept or 1)
    assert left == text if kept is None else text.startswith(left.rstrip())
    assert rows(done, "audit.parquet")[0]["words"] == len(text.split())
