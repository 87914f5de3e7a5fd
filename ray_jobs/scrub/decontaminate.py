"""Decontamination: which documents hold text of the evaluation sets (Brown et al. 2020, arXiv:2005.14165, appendix C).

    matches   a shard for every input file: where its documents hold n-grams of examples
    common    one shard: n-grams that so many documents hold that they are no sign of anything

The verdict on a document follows from its own matches and the common n-grams; it is found in stage `documents`. So it
depends on the other files of this node's input, by way of `common` alone, and on nothing outside it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from configs.scrub import Decontamination
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import OutputFile, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.scrub.ngrams import NgramIndex, find_matches, index_examples

RULE = "contaminated"

# What appendix C does where documents are cut: so many characters on both sides of an n-gram go with it, shorter pieces
# are thrown away, and of documents that fall into more pieces nothing is kept.
CUT_AROUND = 200
MIN_PIECE = 200
MAX_PIECES = 10

HITS = pa.schema(
    {
        "id": pa.string(),
        "set": pa.string(),
        "example": pa.int64(),
        "count": pa.int32(),  # of different n-grams that the document shares with the example
        "words": pa.string(),  # of the first of them
    }
)
MATCHES = pa.schema({"row": pa.int32(), "ngram": pa.int32(), "start": pa.int64(), "end": pa.int64()})


@dataclass(frozen=True)
class Contamination:
    """What the stages above found; picklable."""

    spec: Decontamination
    eval_sets: Checkpoint
    store: Store
    matches: dict[int, OutputFile]
    """Input file -> its matches. An input whose shard was given up is not judged, so it is not here."""
    common: OutputFile
    metrics: dict[str, float | int | str]


@dataclass(frozen=True)
class Hit:
    """A document and an example share text."""

    set: str
    example: int
    count: int
    words: str


@dataclass(frozen=True)
class Verdict:
    """On a contaminated document."""

    num_ngrams: int
    hits: tuple[Hit, ...]
    """Those with the most n-grams first."""
    spans: tuple[tuple[int, int], ...]
    """(start, end) of each match in the text, in bytes."""

    @property
    def by(self) -> str:
        """The example that the document shares most with: gsm8k/17."""
        return f"{self.hits[0].set}/{self.hits[0].example}"


@dataclass(frozen=True)
class Examples:
    """The evaluation sets, indexed."""

    index: NgramIndex
    names: tuple[str, ...]
    sets: npt.NDArray[np.int32]
    """Of each example, by its place in `names`."""
    numbers: npt.NDArray[np.int64]
    """Of each example, within its set."""


@dataclass(frozen=True)
class _Context:
    spec: Decontamination
    eval_sets: Checkpoint
    documents: Checkpoint


def find_contamination(
    spec: Decontamination, documents: Checkpoint, eval_sets: Checkpoint, output: NodeOutput
) -> Contamination:
    """Runs both stages over all documents."""
    num_files = len(documents.files("documents.parquet"))
    context = _Context(spec, eval_sets, documents)
    done = output.fan_out("matches", [{"input": i} for i in range(num_files)], match, context)
    files = {receipt.shard: receipt.files[0] for receipt in done}
    common = output.standing("common") or output.write("common", count_common(spec, list(files.values()), output.store))
    metrics: dict[str, float | int | str] = {"common_ngrams": common.counters["common_ngrams"]}
    if done:
        metrics["examples_too_short"] = done[0].info["examples_too_short"]
    return Contamination(spec, eval_sets, output.store, files, common.files[0], metrics)


def match(shard: dict[str, Any], context: _Context) -> ShardOutput:
    """One input file's matches."""
    examples = examples_of(context.eval_sets, context.spec)
    file = context.documents.files("documents.parquet")[shard["input"]]
    text = pq.read_table(pa.BufferReader(context.documents.read(file)), columns=["text"])["text"]
    found = find_matches(text, examples.index)
    table = pa.table([found.document, found.ngram, found.start, found.end], schema=MATCHES)
    return ShardOutput(
        {"matches.parquet": parquet_file(table)},
        {"matches": table.num_rows},
        {"examples_too_short": examples.index.num_short},
    )


def count_common(spec: Decontamination, files: list[OutputFile], store: Store) -> ShardOutput:
    """The n-grams that more documents hold than `max_documents`, sorted. Counts those that any document holds."""
    total = Counter[int]()
    for file in files:
        table = pq.read_table(pa.BufferReader(read_checked(store, file)), columns=["row", "ngram"])
        pairs = np.unique(np.stack([table["ngram"].to_numpy(), table["row"].to_numpy()]), axis=1)
        ngrams, documents = np.unique(pairs[0], return_counts=True)
        total.update(dict(zip(ngrams.tolist(), documents.tolist(), strict=True)))
    limit = spec.max_documents
    common = sorted(ngram for ngram, documents in total.items() if limit is not None and documents > limit)
    table = pa.table({"ngram": pa.array(common, pa.int32())})
    return ShardOutput(
        {"common.parquet": parquet_file(table)}, {"matched_ngrams": len(total), "common_ngrams": len(common)}
    )


def verdicts_of(contamination: Contamination, number: int) -> dict[int, Verdict]:
    """Row -> verdict, of the contaminated documents of one input file."""
    matches = _read(contamination, contamination.matches[number])
    common = _read(contamination, contamination.common)["ngram"].to_numpy()
    matches = matches.filter(pa.array(~np.isin(matches["ngram"].to_numpy(), common)))
    if not matches.num_rows:
        return {}
    examples = examples_of(contamination.eval_sets, contamination.spec)
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for row, *match in zip(*(matches[name].to_pylist() for name in MATCHES.names), strict=True):
        found[row].append((match[0], match[1], match[2]))
    return {row: _verdict(found[row], examples) for row in sorted(found)}


def _verdict(matches: list[tuple[int, int, int]], examples: Examples) -> Verdict:
    """Of a document's matches (n-gram, start, end) in the order of its text."""
    ngrams = list(dict.fromkeys(ngram for ngram, _, _ in matches))
    shared: dict[int, list[int]] = defaultdict(list)
    for ngram in ngrams:
        for example in examples.index.examples(ngram):
            shared[example].append(ngram)
    hits = [
        Hit(
            examples.names[examples.sets[example]],
            int(examples.numbers[example]),
            len(shared[example]),
            examples.index.words(shared[example][0]),
        )
        for example in sorted(shared, key=lambda example: (-len(shared[example]), example))
    ]
    return Verdict(len(ngrams), tuple(hits), tuple((start, end) for _, start, end in matches))


def without(table: pa.Table, verdicts: dict[int, Verdict], spec: Decontamination) -> tuple[pa.Table, list[int]]:
    """The documents that stay, some of them cut; and the rows of those that do not."""
    texts = table["text"].cast(pa.large_binary())
    left = {row: cut(texts[row].as_py(), verdicts[row].spans) for row in verdicts} if spec.action == "cut" else {}
    dropped = [row for row in sorted(verdicts) if left.get(row) is None]
    if any(text is not None for text in left.values()):
        data = texts.to_pylist()
        for row, text in left.items():
            data[row] = data[row] if text is None else text
        column = pa.array(data, pa.large_binary()).view(pa.large_string())
        table = table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), column)
    if not dropped:
        return table, dropped
    stays = np.ones(table.num_rows, dtype=bool)
    stays[dropped] = False
    return table.filter(pa.array(stays)), dropped


def cut(text: bytes, spans: tuple[tuple[int, int], ...]) -> bytes | None:
    """The text without the spans and the characters around them, its pieces as paragraphs; None where too little or too
    many pieces are left.

    Args:
        spans: (start, end) in bytes, by their start.
    """
    pieces, kept = [], 0
    for start, end in spans:
        before = _characters(text[max(kept, start - 4 * CUT_AROUND) : start])[-CUT_AROUND:]
        pieces.append(text[kept : max(kept, start - len(_bytes(before)))])
        after = _characters(text[end : end + 4 * CUT_AROUND])[:CUT_AROUND]
        kept = max(kept, end + len(_bytes(after)))
    pieces.append(text[kept:])
    pieces = [piece for piece in pieces if len(_characters(piece)) >= MIN_PIECE]
    if not pieces or len(pieces) > MAX_PIECES:
        return None
    return b"\n\n".join(piece.strip() for piece in pieces)


def _characters(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def hits_table(verdicts: dict[int, Verdict], ids: pa.ChunkedArray) -> pa.Table:
    """contamination.parquet: a row for each document and example that share text."""
    rows = [(ids[row].as_py(), hit) for row in sorted(verdicts) for hit in verdicts[row].hits]
    columns = {
        "id": [id for id, _ in rows],
        "set": [hit.set for _, hit in rows],
        "example": [hit.example for _, hit in rows],
        "count": [hit.count for _, hit in rows],
        "words": [hit.words for _, hit in rows],
    }
    return pa.table(columns, schema=HITS)


def examples_of(eval_sets: Checkpoint, spec: Decontamination) -> Examples:
    """The evaluation sets' index, made once a process."""
    key = (eval_sets.store.url, eval_sets.key, spec)
    if key not in _indexed:
        _indexed.clear()
        _indexed[key] = _index(eval_sets, spec)
    return _indexed[key]


_indexed: dict[tuple[str, str, Decontamination], Examples] = {}


def _index(eval_sets: Checkpoint, spec: Decontamination) -> Examples:
    files = eval_sets.files("examples.parquet")
    columns = ["set", "example", "text"]
    tables = [pq.read_table(pa.BufferReader(eval_sets.read(file)), columns=columns) for file in files]
    table = pa.concat_tables(tables)
    names = tuple(str(one["set"][0].as_py()) for one in tables)
    sets = np.repeat(np.arange(len(tables), dtype=np.int32), [one.num_rows for one in tables])
    index = index_examples(table["text"], sets, spec.ngram_words, spec.min_words)
    return Examples(index, names, sets, table["example"].to_numpy())


def _read(contamination: Contamination, file: OutputFile) -> pa.Table:
    return pq.read_table(pa.BufferReader(read_checked(contamination.store, file)))
