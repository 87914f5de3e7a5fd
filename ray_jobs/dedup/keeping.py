"""Stages "documents" and "sources": what is kept, the audit of all documents, and what each source lost."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.checkpoint.shards import ShardOutput, parquet_file
from ray_jobs.dedup.corpus import Corpus
from ray_jobs.dedup.routing import VERDICTS
from ray_jobs.dedup.sources import count_sources, over_loss, total_each
from ray_jobs.dedup.urls import is_retracted
from ray_jobs.files.parts import read_tables
from ray_jobs.files.ranges import searchable_file

NUM_SAMPLES = 5
SAMPLE_CHARACTERS = 300
MAX_ALARMS = 100
"""Sources named in the receipt; sources.parquet holds all."""

AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("decision", pa.string()),
        ("rule", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float32()),
        ("verified_by", pa.string()),
    ]
)


def keep(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """One input file's documents without the duplicates, the audit of all of them, and counts by source."""

    from ray_jobs.dedup.verify import RULES

    file = shard["input"]
    table = corpus.read(corpus.documents[file])
    group = corpus.group_of_file(file)
    verdicts = corpus.file_of_group("index", "verdicts.parts", group)
    found = read_tables(corpus.store, [verdicts], file - corpus.level.groups[group][0], VERDICTS)
    start = np.uint64(corpus.first_own + corpus.level.file_starts()[file])
    rows = (found["document"].to_numpy() - start).astype(np.int64)

    retracted = np.flatnonzero(is_retracted(corpus.store, corpus.spec.retracted, table["id"], table["url"]))
    columns = {name: np.full(table.num_rows, None, dtype=object) for name in AUDIT.names[2:]}
    for name, column in columns.items():
        column[rows] = found[name].to_pylist()
    columns["rule"][retracted] = "retracted"
    rule = columns["rule"]
    kept = table.filter(pa.array([one is None for one in rule], pa.bool_()))
    audit = pa.table(
        {
            "id": table["id"].cast(pa.string()),
            "decision": pa.array(["kept" if one is None else "dropped" for one in rule], pa.string()),
            **{name: pa.array(column, AUDIT.field(name).type) for name, column in columns.items()},
        },
        schema=AUDIT,
    )
    samples = [
        {
            "id": table["id"][row].as_py(),
            "rule": rule[row],
            "duplicate_of": columns["duplicate_of"][row],
            "similarity": round(columns["similarity"][row], 4),
            "text": text_of(table, row)[:SAMPLE_CHARACTERS],
        }
        for row in rows[:NUM_SAMPLES].tolist()
    ]
    # What was retracted is no loss of its source.
    stands = np.ones(table.num_rows, dtype=np.bool_)
    stands[retracted] = False
    is_kept = np.array([one is None for one in rule], dtype=np.bool_)
    return ShardOutput(
        {
            "documents.parquet": searchable_file(kept),
            "audit.parquet": parquet_file(audit),
            "sources.parquet": parquet_file(count_sources(table["url"].filter(stands), is_kept[stands])),
        },
        {
            "documents_in": table.num_rows,
            "documents_kept": kept.num_rows,
            **{f"dropped.{name}": int((rule == name).sum()) for name in (*RULES[1:], "retracted")},
            "text_bytes_in": text_bytes(table),
            "text_bytes_kept": text_bytes(kept),
        },
        {"dropped_samples": samples},
    )


def add_up_sources(corpus: Corpus) -> ShardOutput:
    """Every source's documents over all shards, and which of them lost more than the spec allows in silence."""
    spec = corpus.spec
    sources = total_each(corpus.read(file) for file in corpus.files("documents", "sources.parquet"))
    losses = over_loss(sources, spec.max_source_loss, spec.min_source_documents)
    return ShardOutput(
        {"sources.parquet": parquet_file(sources)},
        {"sources": sources.num_rows, "sources_over_loss": len(losses)},
        {"over_loss": [asdict(loss) for loss in losses[:MAX_ALARMS]]},
    )


def text_of(table: pa.Table, row: int) -> str:
    data: bytes = table["text"][row].cast(pa.large_binary()).as_py()
    return data.decode(errors="replace")


def text_bytes(table: pa.Table) -> int:
    return pc.sum(pc.binary_length(table["text"])).as_py() or 0
