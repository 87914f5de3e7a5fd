"""python -m tests.benchmarks.corpus: from archives to clean text, on one core.

"docs_per_s_core" and "mb_per_s" are of a second of processor time, of all threads and child processes together: a
busy machine changes that little, and no program gains by a second core. "_s" is a second of the clock.
"""

import functools
import gzip
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.files.columns import text_buffers
from tests.benchmarks.harness import Bench, NotMeasured, figure, main

if TYPE_CHECKING:
    import pyarrow as pa

    from configs.crawl import FilterSpec
    from ray_jobs.repeats.words import Words

DATA = Path(os.environ.get("HEADRACE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PEER_PAGES = 400  # of the debian crawl: what datatrove reads in 10 s
TEXT_PAGES = 2_000
DOCUMENT_BYTES = 4096
PEER_DOCUMENTS = 1_000
PEER_SECONDS = 1800
LSH_SECONDS = 600
DATATROVE = (
    "datatrove==0.10.1",
    "trafilatura==1.11.0",  # the newest that datatrove takes
    "lxml_html_clean==0.4.3",
    "warcio==1.7.5",
    "faust-cchardet==2.1.19",
    "python-magic==0.4.27",
    "orjson==3.11.3",
)

DATATROVE_DECONTAMINATION = (
    "datatrove==0.10.1",
    "spacy==3.8.18",
    "regex==2026.11.19",
    "xxhash==3.6.0",  # a newer one hashes no strings, which datatrove gives it
)


@functools.cache
def scratch() -> Path:
    """A folder for what all figures read. Ends with this process."""
    return Path(_until_exit().enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-corpus-")))


@functools.cache
def _until_exit() -> ExitStack:
    import atexit

    stack = ExitStack()
    atexit.register(stack.close)
    return stack


@functools.cache
def share_of_archive(given: Path | None, num_pages: int) -> Path:
    """The first pages of an archive, as an archive of their own; by default of the debian crawl.

    Each page says that it is HTML, as in Common Crawl's archives: without that datatrove passes over XHTML pages, which
    its guess calls XML. Our reader looks at nothing of the kind.
    """
    from fastwarc import ArchiveIterator, WarcRecordType

    archive = given or DATA / "debian" / "debian-multi.warc.gz"
    if not archive.is_file():
        raise NotMeasured(
            f"{archive} is not there: set HEADRACE_DATA to the data's folder, or name a WARC with --input"
        )
    share = scratch() / f"{num_pages}.warc.gz"
    with archive.open("rb") as stream, share.open("wb") as target:
        pages = ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=False)
        for page in itertools.islice(pages, num_pages):
            page.headers["WARC-Identified-Payload-Type"] = "text/html"
            written = io.BytesIO()
            page.write(written)
            target.write(gzip.compress(written.getvalue(), 6))
    return share


@contextmanager
def processor_time() -> Iterator[Callable[[], float]]:
    """Seconds of processor time of a block, of this process's threads together; asked for after it."""
    began = time.process_time()
    ended: list[float] = []
    yield lambda: ended[0] - began
    ended.append(time.process_time())


@figure("docs/s", target="≥ 15 × warc_to_text_docs_per_s_core_datatrove")
def warc_to_text_docs_per_s_core(bench: Bench) -> float:
    """Reading and extraction of one archive, which is what datatrove's figure is of."""
    from configs.crawl import FilterSpec

    return extracted_docs_per_s(share_of_archive(bench.input, PEER_PAGES), FilterSpec(languages=()))


@figure("docs/s")
def filter_docs_per_s_core(bench: Bench) -> float:
    """The node's whole work on the archive: with language, statistics and rules, and both tables as Parquet."""
    from configs.crawl import FilterSpec
    from tests.crawl.nodes import filter_one

    share = share_of_archive(bench.input, PEER_PAGES)
    with processor_time() as seconds:
        counters = filter_one(share, FilterSpec(languages=())).counters
    bench.notes |= {"pages": counters["documents_in"], "kept": counters["documents_kept"]}
    return counters["documents_in"] / seconds()


def extracted_docs_per_s(archive: Path, spec: "FilterSpec") -> float:
    from ray_jobs.crawl.documents import document_of
    from ray_jobs.crawl.records import Faults, read_records
    from ray_jobs.files.streams import LocalFile

    with processor_time() as seconds:
        records = read_records(LocalFile(archive), spec.max_bytes, Faults())
        num_pages = sum(document_of(record, spec).num_bytes > 0 for record in records)
    return num_pages / seconds()


@figure("docs/s", target="≥ warc_to_text_docs_per_s_core_datatrove")
def warc_to_text_quality_docs_per_s_core(bench: Bench) -> float:
    """The whole filter with trafilatura, its worker's processor time and start included."""
    from configs.crawl import FilterSpec
    from tests.crawl.nodes import filter_one

    share = share_of_archive(bench.input, PEER_PAGES)
    began = os.times()
    counters = filter_one(share, FilterSpec(languages=(), extraction="quality")).counters
    ended = os.times()
    bench.notes |= {"pages": counters["documents_in"], "kept": counters["documents_kept"]}
    return counters["documents_in"] / (sum(ended[:4]) - sum(began[:4]))


@figure("docs/s", warm_up=False)  # the script warms up by itself
def warc_to_text_docs_per_s_core_datatrove(bench: Bench) -> float:
    """datatrove's WARC reader and Trafilatura, reading and extraction only, on the same archive."""
    share = share_of_archive(bench.input, PEER_PAGES)
    pages_per_s, read, kept = peer(bench, DATATROVE, "peer_datatrove.py", share)
    bench.notes |= {"pages": int(read), "kept": int(kept), "version": DATATROVE[0]}
    return pages_per_s


def peer(bench: Bench, requirements: tuple[str, ...], script: str, *arguments: object) -> list[float]:
    """The numbers that a script beside this file prints."""
    return [float(number) for number in peer_lines(bench, requirements, script, *arguments)[-1].split()]


def peer_lines(bench: Bench, requirements: tuple[str, ...], script: str, *arguments: object) -> list[str]:
    """The lines that a script beside this file prints, run in an environment of the requirements."""
    try:
        python = bench.peer_python(*requirements)
    except subprocess.CalledProcessError as error:
        raise NotMeasured(f"{', '.join(requirements)} cannot be installed here") from error
    command = [str(python), str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=bench.new_folder(), capture_output=True, text=True, timeout=PEER_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout.splitlines()


@functools.cache
def main_texts(given: Path | None) -> "pa.ChunkedArray":
    """Main text of the pages that the filter keeps, in all languages."""
    from configs.crawl import FilterSpec
    from tests.crawl.nodes import filter_one, table

    output = filter_one(share_of_archive(given, TEXT_PAGES), FilterSpec(languages=()))
    return table(output.files["documents.parquet"].data)["text"]


@functools.cache
def equal_documents(given: Path | None) -> "pa.Array":
    """Real main text cut into documents of DOCUMENT_BYTES."""
    import pyarrow as pa

    text = "\n".join(main_texts(given).to_pylist()).encode()
    starts = range(0, len(text) - DOCUMENT_BYTES, DOCUMENT_BYTES)
    return pa.array(
        [text[start : start + DOCUMENT_BYTES].decode(errors="ignore") for start in starts], pa.large_string()
    )


@figure("docs/s", target="≥ 9,000")
def heuristics_docs_per_s_core(bench: Bench) -> float:
    """The statistics of all of the filter's rules: Gopher's, C4's and FineWeb's."""
    import numpy as np

    from ray_jobs.crawl.statistics import NAMES, statistics
    from ray_jobs.files.columns import text_buffers

    documents = equal_documents(bench.input)
    data, offsets = text_buffers(documents)
    bench.notes |= {"documents": len(documents), "statistics": len(NAMES)}
    with processor_time() as seconds:
        statistics(np.asarray(data), offsets)
    return len(documents) / seconds()


@figure("docs/s", target="≥ 40,000")
def minhash_docs_per_s_core(bench: Bench) -> float:
    """From text to signatures: normalised, cut into word n-grams, hashed, permuted."""
    from configs.dedup import DedupSpec
    from ray_jobs.dedup import minhash

    spec, documents = DedupSpec(), equal_documents(bench.input)
    bench.notes |= {"documents": len(documents), "permutations": spec.num_permutations}
    with processor_time() as seconds:
        text, offsets = minhash.normalise(*text_buffers(documents))
        minhash.signatures(text, offsets, spec.shingle_words, spec.num_permutations, spec.seed)
    return len(documents) / seconds()


@figure("docs/s", warm_up=False)  # the script warms up by itself
def minhash_docs_per_s_core_datasketch(bench: Bench) -> float:
    return minhash_of_peer(bench, ("datasketch==2.0.0", "xxhash==3.6.0"), "peer_datasketch.py")


@figure("docs/s", warm_up=False)  # the script warms up by itself
def minhash_docs_per_s_core_rensa(bench: Bench) -> float:
    return minhash_of_peer(bench, ("rensa==0.5.0",), "peer_rensa.py")


@figure("docs/s", target="≥ 49,500")
def simhash_docs_per_s_core(bench: Bench) -> float:
    """From text to SimHashes of 64 bits, over the same n-grams."""
    from configs.dedup import DedupSpec
    from ray_jobs.dedup import minhash, simhash

    documents = equal_documents(bench.input)
    bench.notes |= {"documents": len(documents)}
    with processor_time() as seconds:
        simhash.simhashes(*minhash.normalise(*text_buffers(documents)), DedupSpec().shingle_words)
    return len(documents) / seconds()


@figure("MB/s")
def repeats_mb_per_s_core(bench: Bench) -> float:
    """The whole node, in this process, on main text of 30 languages in four files, in a store of files."""
    from configs.repeats import RepeatsSpec
    from ray_jobs.checkpoint.store import open_store
    from tests.dedup.corpus import computed, document_table, published

    store, texts = open_store(bench.new_folder()), main_texts(bench.input).to_pylist()
    quarter = -(-len(texts) // 4)
    source = published(store, [document_table(texts[i * quarter : (i + 1) * quarter], i) for i in range(4)])
    with processor_time() as seconds:
        counters = computed(RepeatsSpec(), {"documents": source}, store).manifest.counters
    bench.notes |= {
        "documents": counters["documents_in"],
        "words_kept_share": round(counters["words_kept"] / counters["words_in"], 3),
    }
    return counters["text_bytes_in"] / 1e6 / seconds()


@figure("MB/s")
def repeats_by_windows_mb_per_s_core(bench: Bench) -> float:
    """First places of windows of 50 words in one file, from its words."""
    from ray_jobs.repeats import windows

    words = words_of_main_texts(bench)
    with processor_time() as seconds:
        windows.first_places(words, windows.window_hashes(words, 50), 50)
    return len(words.data) / 1e6 / seconds()


@figure("MB/s")
def repeats_by_suffix_array_mb_per_s_core(bench: Bench) -> float:
    """The same places by a suffix array."""
    from ray_jobs.repeats import suffix_array

    words = words_of_main_texts(bench)
    with processor_time() as seconds:
        suffix_array.first_places(words, 50)
    return len(words.data) / 1e6 / seconds()


def words_of_main_texts(bench: Bench) -> "Words":
    from ray_jobs.repeats.words import split

    return split(*text_buffers(main_texts(bench.input)))


def minhash_of_peer(bench: Bench, requirements: tuple[str, ...], script: str) -> float:
    """From text to signatures, as above. The note is the library's own part, its word n-grams made beforehand."""
    from configs.dedup import DedupSpec

    spec, documents = DedupSpec(), equal_documents(bench.input)[:PEER_DOCUMENTS].to_pylist()
    file = bench.new_folder() / "documents.jsonl"
    file.write_text("\n".join(map(json.dumps, documents)))
    whole, library = peer(bench, requirements, script, file, spec.num_permutations, spec.shingle_words)
    bench.notes |= {"documents": len(documents), "without_making_ngrams": round(library), "version": requirements[0]}
    return whole


def lsh(bench: Bench, num_documents: int, *only: str) -> dict[str, float]:
    """What lsh_child.py measures, in a process of its own. Figures of the same size share their runs."""
    bench.notes["runs"] = bench.notes.get("runs", 0) + 1
    measured = lsh_run(bench.notes["runs"], str(num_documents), *only)
    bench.notes |= {name: round(value, 3) for name, value in measured.items()}
    return measured


@functools.cache
def lsh_run(repeat: int, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.lsh_child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LSH_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@figure("s", target="≤ 1", warm_up=False)  # the child compiles beforehand
def lsh_components_1m_s(bench: Bench) -> float:
    """From a million signatures in memory to components: band keys, edges, union-find."""
    return lsh(bench, 1_000_000, "memory")["total_core_s"]


@figure("s", warm_up=False)
def lsh_1m_s(bench: Bench) -> float:
    """The same through the node's stages on a store of files, seconds of the processor; so below."""
    return lsh(bench, 1_000_000)["total_core_s"]


@figure("s", warm_up=False)
def lsh_3m_s(bench: Bench) -> float:
    return lsh(bench, 3_000_000)["total_core_s"]


@figure("s", warm_up=False)
def lsh_10m_s(bench: Bench) -> float:
    return lsh(bench, 10_000_000)["total_core_s"]


@figure("GB", target="< 4", warm_up=False)
def lsh_10m_peak_gb(bench: Bench) -> float:
    """Peak resident memory of that process."""
    return lsh(bench, 10_000_000)["peak_gb"]


@figure("MB/s", target="≥ 80")
def pii_mb_per_s(bench: Bench) -> float:
    """Finding and replacing personal data of all kinds in real main text."""
    from configs.scrub import ScrubSpec
    from ray_jobs.scrub.replace import scrub_column
    from ray_jobs.scrub.scanner import scanner

    texts = main_texts(bench.input)
    megabytes = text_megabytes(texts)
    with processor_time() as seconds:
        scrubbed = scrub_column(texts, scanner(ScrubSpec().replace))
    bench.notes |= {
        "megabytes": round(megabytes, 1),
        "documents": len(texts),
        "replaced": sum(count.total() for count in scrubbed.counts),
    }
    return megabytes / seconds()


@figure("MB/s")
def pii_dense_mb_per_s(bench: Bench) -> float:
    """The same in lists of people, where every line is an e-mail address and a phone number: the worst that text is."""
    import pyarrow as pa

    from configs.scrub import ScrubSpec
    from ray_jobs.scrub.replace import scrub_column
    from ray_jobs.scrub.scanner import scanner

    lines = [f"person{i}@example{i % 977}.org, +49 30 {i:07}" for i in range(50_000)]
    texts = pa.chunked_array([pa.array(["\n".join(lines[i : i + 100]) for i in range(0, len(lines), 100)])])
    with processor_time() as seconds:
        scrubbed = scrub_column(texts, scanner(ScrubSpec().replace))
    elapsed = seconds()
    replaced = sum(count.total() for count in scrubbed.counts)
    bench.notes |= {"replaced": replaced, "replaced_per_s": round(replaced / elapsed)}
    return text_megabytes(texts) / elapsed


@figure("MB/s", target="≥ 100 × decontamination_mb_per_s_core_datatrove")
def decontamination_mb_per_s_core(bench: Bench) -> float:
    """Looking for the 13-grams of GSM8K's questions and answers in real main text."""
    import numpy as np
    import pyarrow as pa

    from configs.scrub import Decontamination
    from ray_jobs.scrub.ngrams import find_matches, index_examples

    rule, examples = Decontamination(), pa.array(eval_examples(), pa.large_string())
    index = index_examples(examples, np.zeros(len(examples), np.int32), rule.ngram_words, rule.min_words)
    texts = main_texts(bench.input)
    with processor_time() as seconds:
        matches = find_matches(texts, index)
    bench.notes |= {"megabytes": round(text_megabytes(texts), 1), "ngrams": len(index), "matches": len(matches.ngram)}
    return text_megabytes(texts) / seconds()


@figure("MB/s", warm_up=False)  # the script warms up by itself
def decontamination_mb_per_s_core_datatrove(bench: Bench) -> float:
    from configs.scrub import Decontamination

    folder = bench.new_folder()
    documents, examples = folder / "documents.jsonl", folder / "examples.jsonl"
    documents.write_text("\n".join(map(json.dumps, equal_documents(bench.input)[:PEER_DOCUMENTS].to_pylist())))
    # How many hardly matters to it, which looks them up in a dict, but it takes long to index them.
    examples.write_text("\n".join(map(json.dumps, eval_examples()[:PEER_DOCUMENTS])))
    rule = Decontamination()
    speed, dropped = peer(
        bench, DATATROVE_DECONTAMINATION, "peer_datatrove_decontamination.py", documents, examples, rule.ngram_words
    )
    bench.notes |= {"documents": PEER_DOCUMENTS, "dropped": int(dropped), "version": DATATROVE_DECONTAMINATION[0]}
    return speed


@functools.cache
def eval_examples() -> list[str]:
    file = DATA / "eval" / "gsm8k_train.jsonl"
    if not file.is_file():
        raise NotMeasured(f"{file} is not there: set HEADRACE_DATA to the data's folder")
    rows = map(json.loads, file.read_text().splitlines())
    return [f"{row['question']}\n{row['answer']}" for row in rows]


def text_megabytes(texts: "pa.ChunkedArray") -> float:
    import pyarrow.compute as pc

    return (pc.sum(pc.binary_length(texts)).as_py() or 0) / 1e6


@figure("share", repeats=1, warm_up=False)
def language_accuracy(bench: Bench) -> float:
    """Sentences in 67 languages told right by lid.176: the mean over languages. The notes have each language's."""
    from ray_jobs.crawl.languages import identify

    return language_shares(bench, lambda sentence: identify(sentence).language)


@figure("share", repeats=1, warm_up=False)
def language_accuracy_py3langid(bench: Bench) -> float:
    """The same by the second opinion."""
    from ray_jobs.cluster.fan_out import UserError
    from ray_jobs.crawl.languages import second_opinion

    try:
        tell = second_opinion("py3langid")
    except UserError as error:
        raise NotMeasured(str(error)) from error
    return language_shares(bench, tell)


def language_shares(bench: Bench, tell: Callable[[str], str]) -> float:
    from tests.crawl.gold import accuracy_by_language

    if not (DATA / "lid").is_dir():
        raise NotMeasured(f"{DATA}/lid is not there: set HEADRACE_DATA to the data's folder")
    shares = accuracy_by_language(DATA, tell)
    bench.notes |= {language: round(share, 3) for language, share in sorted(shares.items(), key=lambda one: one[1])}
    return sum(shares.values()) / len(shares)


@figure("F1", target="≥ .915")
def extract_f1_fast(bench: Bench) -> float:
    """4-gram F1 of main text against the gold of real pages."""
    from ray_jobs.crawl.text import main_text

    return f1_on_gold(bench, main_text)


@figure("F1", target="≥ .96")
def extract_f1_quality(bench: Bench) -> float:
    from ray_jobs.crawl.extractor import Extractor

    with Extractor() as extractor:
        return f1_on_gold(bench, extractor.text_of)


def f1_on_gold(bench: Bench, extract: Callable[[str], str | None]) -> float:
    from tests.crawl.gold import f1_of_main_text

    if not (DATA / "realpages").is_dir():
        raise NotMeasured(f"{DATA}/realpages is not there: set HEADRACE_DATA to the data's folder")
    score = f1_of_main_text(DATA, extract)
    bench.notes |= {
        "pages": score.pages,
        "precision": round(score.precision, 3),
        "recall": round(score.recall, 3),
    }
    return score.f1


@figure("docs/s")
def corpus_path_docs_per_s_core(bench: Bench) -> float:
    """The nodes themselves, in this process: WARC → filter → dedup → scrub, in a store of files."""
    from configs.crawl import FilterSpec, PinnedArchives, SnapshotSpec
    from configs.dedup import DedupSpec
    from configs.scrub import ScrubSpec
    from ray_jobs.checkpoint.store import open_store
    from ray_jobs.files.pins import describe
    from tests.crawl.nodes import run

    store = open_store(bench.new_folder())
    pinned = PinnedArchives(files=(describe(str(share_of_archive(bench.input, TEXT_PAGES))),))
    node = run(store, SnapshotSpec(crawl="bench", content=pinned))
    taken: dict[str, float] = {}
    began = time.perf_counter()
    stages: list[tuple[str, Any]] = [
        ("crawl", FilterSpec(languages=())),
        ("documents", DedupSpec()),
        ("documents", ScrubSpec()),
    ]
    funnel = []
    for slot, spec in stages:
        with processor_time() as seconds:
            node = run(store, spec, {slot: node})
        taken[spec.node] = seconds()
        funnel.append(node.manifest.counters)
    total = sum(taken.values())
    bench.notes |= {
        "pages": funnel[0]["documents_in"],
        "left": funnel[-1]["documents_kept"],
        **{f"{name}_share": round(one / total, 3) for name, one in taken.items()},
        "core_s": round(total, 2),
        "wall_s": round(time.perf_counter() - began, 2),
    }
    return funnel[0]["documents_in"] / total


if __name__ == "__main__":
    main("corpus", __name__)
